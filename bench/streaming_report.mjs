// Turns what was measured of streaming into its part of docs/benchmarks.md.
import { heading, milliseconds, quantile, ratio, table } from "./report.mjs";

const own = "Penstock";
const titles = {
  drawn: "painted in the viewer's canvas",
  frame: "in an animation frame of the page",
};

/** The measured part about streaming; scenarios that were left out are left out here. */
export function streamingReport(results) {
  const { machine, presses, motion, office, idle, opening, launches, starts, memory } = results;
  const targets = [];
  const parts = [
    heading(
      results,
      ["browser", `Chromium ${machine.chromium}, headless, one for each viewer`],
      ["X server of a session, and of x11vnc", `xvfb ${machine.xvfb}`],
      ["video of a session", `OpenH264 ${machine.openh264}`],
      [
        "peers",
        `TigerVNC ${machine.tigervnc}, x11vnc ${machine.x11vnc}, noVNC ${machine.novnc}, websockify ${machine.websockify}; Xpra ${machine.xpra} with its own HTML5 client`,
      ],
    ),
  ];
  if (results.failures.length > 0) {
    parts.push(
      "### What failed",
      table(
        ["viewer", "scenario", "why"],
        results.failures.map(({ viewer, scenario, message }) => [viewer, scenario, message]),
      ),
    );
  }
  if (presses?.length > 0) {
    parts.push(...pressTables(presses, targets));
  }
  if (motion.length > 0) {
    parts.push(...motionTable(motion, targets));
  }
  if (office?.length > 0) {
    parts.push(...officeTable(office, targets));
  }
  if (idle !== undefined) {
    parts.push(...idleTable(idle, targets));
  }
  if (opening?.length > 0) {
    parts.push(...openingTable(opening, launches, targets));
  }
  if (results.steps !== undefined) {
    parts.push(
      "Steps of one opening that was traced, which makes it slower; milliseconds from the navigation on.",
      table(
        ["at", "step"],
        results.steps.map(({ at, step }) => [milliseconds(at), step]),
      ),
    );
  }
  if (starts !== undefined) {
    parts.push(
      table(
        ["from the start of the process to `ready`", "fastest", "p50", "slowest"],
        [
          ["`penstock dev` on an empty folder", ...spread(starts.fresh)],
          ["`penstock dev` on a folder that has its demo", ...spread(starts.again)],
        ],
      ),
    );
  }
  parts.push(...memoryTable(memory, targets));
  const against = table(["quantity", "target", "here", "best peer", "reached"], targets);
  return `${[parts[0], `### Against the targets of streaming\n\n${against}`, ...parts.slice(1)].join("\n\n")}\n`;
}

const viewersOf = (found) => [...new Set(found.map(({ viewer }) => viewer))].sort(ownFirst);
const ownFirst = (a, b) => Number(b === own) - Number(a === own) || a.localeCompare(b);
const median = (values) => quantile(values, 0.5);

/** The peer that is best, { viewer, value }, undefined without peers; better is "less" or "more". */
function bestPeer(viewers, value, better) {
  const found = viewers
    .filter((viewer) => viewer !== own)
    .map((viewer) => ({ viewer, value: value(viewer) }))
    .filter((peer) => peer.value !== undefined)
    .sort((a, b) => (better === "less" ? a.value - b.value : b.value - a.value));
  return found[0];
}

/** A row of the targets: here, and by how much the target is missed. limit is the value to reach, worked out already. */
function judge(targets, { quantity, target, value, limit, better = "less", show, best }) {
  if (value === undefined || limit === undefined) {
    return;
  }
  const reached = better === "less" ? value <= limit : value >= limit;
  // Where the limit is nothing there is no ratio to it.
  const by = limit === 0 ? `by ${show(value)}` : `${ratio(value, limit)} of it`;
  targets.push([
    quantity,
    target,
    show(value),
    best === undefined
      ? ""
      : `${show(best.value)} (${best.viewer})${best.value === 0 ? "" : `: ${ratio(value, best.value)}`}`,
    reached ? "yes" : `missed: ${by}`,
  ]);
}

function pressTables(presses, targets) {
  const rows = [];
  const groups = new Map();
  for (const { area, input, mode } of presses) {
    groups.set(`${area.width} ${input} ${mode}`, { area, input, mode });
  }
  for (const { area, input, mode } of groups.values()) {
    const of = (viewer) =>
      presses.filter(
        (p) =>
          p.viewer === viewer &&
          p.area.width === area.width &&
          p.input === input &&
          p.mode === mode,
      );
    const all = (viewer) => of(viewer).flatMap(({ times }) => times);
    const viewers = viewersOf(presses).filter((viewer) => of(viewer).length > 0);
    const shares = [0.5, 0.95, 0.99];
    const best = shares.map((share) =>
      bestPeer(viewers, (viewer) => quantile(all(viewer), share), "less"),
    );
    const what = `${input}, ${area.width}×${area.height}, ${titles[mode]}`;
    for (const viewer of viewers) {
      const times = all(viewer);
      rows.push([
        viewer === viewers[0] ? what : "",
        viewer,
        times.length,
        ...shares.map((share) => milliseconds(quantile(times, share))),
        of(viewer)
          .map((round) => milliseconds(median(round.times)))
          .join(", "),
      ]);
    }
    if (viewers.includes(own) && best[0] !== undefined) {
      rows.push([
        "",
        "ratio to the best peer",
        "",
        ...shares.map((share, i) => ratio(quantile(all(own), share), best[i].value)),
        "",
      ]);
      if (area.width <= 200 && input === "key" && mode === "drawn") {
        for (const [i, share, factor] of [
          [0, 0.5, 0.45],
          [1, 0.95, 0.5],
        ]) {
          judge(targets, {
            quantity: `key to changed pixel, small change, p${share * 100}`,
            target: `≤ ${factor}× the best peer`,
            value: quantile(all(own), share),
            limit: factor * best[i].value,
            show: (v) => `${milliseconds(v)} ms`,
            best: best[i],
          });
        }
      }
    }
  }
  return [
    "### Press to changed pixel\n\nMilliseconds, viewers in turns.",
    table(
      ["press, area, pixel is", "viewer", "presses", "p50", "p95", "p99", "p50 of each round"],
      rows,
    ),
  ];
}

function motionTable(motion, targets) {
  const rows = [];
  const aims = { 720: { fps: 50, age: 60 }, 1080: { fps: 25, age: 90 } };
  for (const height of [...new Set(motion.map((m) => m.height))]) {
    const these = motion.filter((m) => m.height === height);
    const viewers = viewersOf(these);
    const mean = (viewer, value) => {
      const values = these.filter((m) => m.viewer === viewer).map(value);
      return values.some((v) => v === undefined)
        ? undefined
        : values.reduce((total, v) => total + v, 0) / values.length;
    };
    const fps = (viewer) => mean(viewer, (m) => m.wholePerSecond);
    const age = (i) => (viewer) => mean(viewer, (m) => m.age?.[i]);
    const cores = (name) => (viewer) => mean(viewer, ({ cost }) => cost[name] / 10 / cost.seconds);
    for (const viewer of viewers) {
      const show = (value, text) => (value === undefined ? "–" : text(value));
      rows.push([
        viewer === viewers[0] ? `${these[0].width}×${height}` : "",
        viewer,
        fps(viewer).toFixed(1),
        `${(100 * mean(viewer, (m) => m.torn)).toFixed(1)} %`,
        show(age(0)(viewer), milliseconds),
        show(age(1)(viewer), milliseconds),
        mean(viewer, ({ cost }) => (cost.bytes.in * 8) / 1e6 / cost.seconds).toFixed(1),
        ...["server", "x", "browser"].map((name) => `${cores(name)(viewer).toFixed(0)} %`),
        mean(viewer, (m) => m.madePerSecond).toFixed(0),
        mean(viewer, (m) => m.looksPerSecond).toFixed(0),
        these
          .filter((m) => m.viewer === viewer)
          .map((m) => m.wholePerSecond.toFixed(1))
          .join(", "),
      ]);
    }
    const aim = aims[height];
    if (aim === undefined || !viewers.includes(own)) {
      continue;
    }
    judge(targets, {
      quantity: `full motion ${these[0].width}×${height}, whole frames shown`,
      target: `≥ ${aim.fps} /s`,
      value: fps(own),
      limit: aim.fps,
      better: "more",
      show: (v) => `${v.toFixed(1)} /s`,
      best: bestPeer(viewers, fps, "more"),
    });
    judge(targets, {
      quantity: `full motion ${these[0].width}×${height}, age p95`,
      target: `≤ ${aim.age} ms`,
      value: age(1)(own),
      limit: aim.age,
      show: (v) => `${milliseconds(v)} ms`,
      best: bestPeer(viewers, age(1), "less"),
    });
  }
  return [
    "### Full motion\n\n`bench/motion`, 60 frames a second; means of the rounds. Age in milliseconds, processor time in percent of one core.",
    table(
      [
        ...["picture", "viewer", "whole frames shown /s", "time torn", "age p50", "age p95"],
        ...[
          "Mbit/s",
          "server",
          "X server apart",
          "browser",
          "frames made /s",
          "looks /s",
          "frames /s of each round",
        ],
      ],
      rows,
    ),
  ];
}

function officeTable(office, targets) {
  const viewers = viewersOf(office);
  const of = (viewer) => office.find((o) => o.viewer === viewer);
  const kib = (viewer) => (of(viewer).cost.bytes.in + of(viewer).cost.bytes.out) / 1024;
  // TigerVNC's X server is its VNC server: only the sum of both can be compared.
  const server = (viewer) => (of(viewer).cost.server + of(viewer).cost.x) / 1000;
  const browser = (viewer) => of(viewer).cost.browser / 1000;
  const exact = (viewer) => of(viewer).exact * 100;
  const parts = (viewer) => {
    const ends = [...of(viewer).cost.parts, { name: "typing", bytes: of(viewer).cost.bytes }];
    const sum = ({ bytes }) => (bytes.in + bytes.out) / 1024;
    return ends
      .map((part, i) => `${part.name} ${(sum(part) - (i === 0 ? 0 : sum(ends[i - 1]))).toFixed(0)}`)
      .join(", ");
  };
  const seconds = (value) => `${value.toFixed(2)} s`;
  if (viewers.includes(own)) {
    const rows = [
      ["bytes on the wire", 0.15, kib, (v) => `${v.toFixed(0)} KiB`],
      ["processor time of server and X server", 0.5, server, seconds],
      ["processor time of the browser", 0.5, browser, seconds],
    ];
    for (const [name, factor, value, show] of rows) {
      const best = bestPeer(viewers, value, "less");
      judge(targets, {
        quantity: `office work, ${name}`,
        target: `≤ ${factor}× the best peer`,
        value: value(own),
        limit: best === undefined ? undefined : factor * best.value,
        show,
        best,
      });
    }
    judge(targets, {
      quantity: "office work, pixels exact 1 s after",
      target: "100 %",
      value: exact(own),
      limit: 100,
      better: "more",
      show: (v) => `${v.toFixed(2)} %`,
      best: bestPeer(viewers, exact, "more"),
    });
  }
  return [
    "### Office work\n\n`bench/office`, thirty seconds and the second after them. Processor time in seconds.",
    table(
      [
        "viewer",
        "KiB on the wire",
        "of these",
        "server",
        "X server apart",
        "server and X server",
        "browser",
        "pixels exact 1 s after",
      ],
      viewers.map((viewer) => [
        viewer,
        kib(viewer).toFixed(0),
        parts(viewer),
        (of(viewer).cost.server / 1000).toFixed(2),
        (of(viewer).cost.x / 1000).toFixed(2),
        server(viewer).toFixed(2),
        browser(viewer).toFixed(2),
        `${exact(viewer).toFixed(2)} %`,
      ]),
    ),
  ];
}

function idleTable(idle, targets) {
  const viewers = viewersOf(idle);
  const of = (viewer) => idle.find((i) => i.viewer === viewer);
  const share = (name) => (viewer) => of(viewer)[name] / 10 / of(viewer).seconds;
  const server = share("server");
  const bytes = (viewer) => (of(viewer).bytes.in + of(viewer).bytes.out) / of(viewer).seconds;
  if (viewers.includes(own)) {
    judge(targets, {
      quantity: "nothing changes, bytes",
      target: "0 B/s",
      value: bytes(own),
      limit: 0,
      show: (v) => `${v.toFixed(1)} B/s`,
      best: bestPeer(viewers, bytes, "less"),
    });
    judge(targets, {
      quantity: "nothing changes, processor time of the server",
      target: "< 0.05 % of a core",
      value: server(own),
      limit: 0.05,
      show: (v) => `${v.toFixed(2)} %`,
      best: bestPeer(viewers, server, "less"),
    });
  }
  return [
    `### Nothing changes\n\n${of(viewers[0]).seconds.toFixed(0)} seconds, all viewers at one time. Percent of one core; the clock of a process ticks every 10 ms.`,
    table(
      ["viewer", "B/s", "server", "X server apart", "browser"],
      viewers.map((viewer) => [
        viewer,
        bytes(viewer).toFixed(1),
        ...["server", "x", "browser"].map((name) => `${share(name)(viewer).toFixed(2)} %`),
      ]),
    ),
  ];
}

function openingTable(opening, launches, targets) {
  const viewers = viewersOf(opening);
  const of = (viewer) =>
    opening.filter((o) => o.viewer === viewer).map(({ milliseconds: time }) => time);
  const show = (v) => `${milliseconds(v)} ms`;
  const rows = viewers.map((viewer) => [
    `address → picture, session running: ${viewer}`,
    ...spread(of(viewer)),
  ]);
  if (viewers.includes(own)) {
    judge(targets, {
      quantity: "opening the address to the right picture, session running, p50",
      target: "≤ 300 ms",
      value: median(of(own)),
      limit: 300,
      show,
      best: bestPeer(viewers, (viewer) => median(of(viewer)), "less"),
    });
  }
  if (launches !== undefined) {
    rows.push([
      "click on an application in the portal → its picture, warm instance: Penstock",
      ...spread(launches.warm),
    ]);
    judge(targets, {
      quantity: "warm instance: click to the right picture, p50",
      target: "≤ 1 s",
      value: median(launches.warm),
      limit: 1000,
      show,
    });
    rows.push([
      "click on an application in the portal → its picture, no instance runs: Penstock",
      ...spread(launches.cold),
    ]);
    judge(targets, {
      quantity: "no instance runs: click to the right picture, p50",
      target: "≤ 3 s",
      value: median(launches.cold),
      limit: 3000,
      show,
    });
  }
  return ["### Opening\n\nMilliseconds.", table(["from → to", "fastest", "p50", "slowest"], rows)];
}

function memoryTable(memory, targets) {
  const megabytes = (kilobytes) => (kilobytes / 1000).toFixed(1);
  const pss = (processes) => processes.reduce((total, { pss: size }) => total + size, 0);
  // One region serves all its sessions: what a session adds is its agent and its window manager.
  const isRegion = ({ command }) => command[1] === "dev";
  const ofSession = ({ server }) => server.filter((process) => !isRegion(process));
  const mine = memory.find(({ viewer }) => viewer === own);
  if (mine !== undefined) {
    judge(targets, {
      quantity: "memory a session beyond X server and applications",
      target: "≤ 40 MiB",
      value: pss(ofSession(mine)) / 1024,
      limit: 40,
      show: (v) => `${v.toFixed(1)} MiB`,
    });
  }
  return [
    "### Memory\n\nMegabytes of a session that shows a still picture, PSS, which counts shared pages once; applications are left out.",
    table(
      ["viewer", "session", "X server apart", "serves all sessions", "the session's processes"],
      memory.map((found) => [
        found.viewer,
        megabytes(pss(ofSession(found))),
        megabytes(pss(found.x)),
        found.server.some(isRegion) ? megabytes(pss(found.server.filter(isRegion))) : "–",
        ofSession(found)
          .map((process) => `${short(process.command)} ${megabytes(process.pss)}`)
          .join(", "),
      ]),
    ),
  ];
}

function spread(values) {
  return [0, 0.5, 1].map((share) => milliseconds(quantile(values, share)));
}

function short([program = "?", ...args]) {
  const name = program.split("/").pop();
  if (name === "penstock") {
    return `penstock ${args[0]}`;
  }
  return name.startsWith("python") ? (args[0]?.split("/").pop() ?? name) : name;
}
