// The page that the endpoint serves: one Viewer, a toolbar, and what the user reads when it does not stream.

import { maxText } from "../input/keyboard.ts";
import type { EndReason } from "../session/end_reason.ts";
import type { SessionState } from "../session/session.ts";
import { endText, texts } from "../texts.ts";
import { newDisplayWorker } from "../video/assets.ts";
import { type PortBlocked, Viewer, type ViewerOptions, type ViewerStats } from "../viewer.ts";
import { boot } from "./boot.ts";
import { loadConfig } from "./config.ts";
import { element } from "./dom.ts";
import { parseFragment, parseSize } from "./fragment.ts";
import { askReachability, type Reachability } from "./reachability.ts";
import { Toolbar } from "./toolbar.ts";

declare global {
  interface Window {
    /** For scripts beside the page: what the viewer does. */
    penstock: { readonly state: SessionState; stats(): ViewerStats };
  }
}

const sizeKey = "penstock.size";

const { fragment } = boot;
keepSize();

const container = document.querySelector<HTMLElement>("#viewer") as HTMLElement;
const options: ViewerOptions = {
  container,
  decoder: boot.decoder,
  newWorker: () => boot.takeWorker() ?? newDisplayWorker(),
};
if (boot.socket !== undefined) {
  options.socket = boot.socket;
}
if (fragment.ticket !== undefined) {
  options.ticket = fragment.ticket;
}
if (fragment.fixedSize !== undefined) {
  options.fixedSize = fragment.fixedSize;
}
const viewer = new Viewer(options);
window.penstock = {
  get state() {
    return viewer.state;
  },
  stats: () => viewer.stats(),
};

const config = later(loadConfig);
viewer.on("leaveKeyboard", () => reveal()); // before the toolbar hears of it, which cannot be focused until it is there
const toolbar = new Toolbar(viewer, config.promise, tell);
void config.promise.then(({ hosts }) => viewer.setAlternatives(hosts));
const status = element("p", { class: "status", role: "status" }, texts.connecting);
const notices = element("div", { class: "notices", role: "log", "aria-live": "polite" });
const overlay = element("div", { class: "overlay" }, status);
/** The first picture comes before everything that has text, whose first layout costs a new page 20 ms and more. */
const quietMillis = 400;
const reveal = once(() => container.after(overlay, notices, toolbar.element));
const late = setTimeout(reveal, quietMillis);
let asking: AbortController | undefined;

viewer.on("welcome", ({ application }) => {
  document.title = application || "Penstock";
  if (viewer.state === "connecting") {
    status.textContent = texts.starting;
  }
});
viewer.on("state", (state) => {
  if (state === "streaming") {
    clearTimeout(late);
    afterFrame(() => {
      reveal();
      if (viewer.state === "streaming") {
        status.textContent = texts.connected; // again: what was there before is not read out
      }
      config.start(); // not before: the first picture comes first
    });
  } else {
    reveal();
    config.start();
  }
  document.body.dataset["state"] = state;
  status.textContent =
    state === "reconnecting" ? texts.reconnecting : state === "streaming" ? texts.connected : "";
});
viewer.on("notice", ({ text }) => tell(text));
viewer.on("told", (text) => tell(text));
viewer.on("inputRefused", () => tell(texts.textTooLong(maxText)));
viewer.on("limited", (size) => size && tell(texts.limited(size.width, size.height)));

/** Shows something to read until it is dismissed; the newest five stay. */
function tell(text: string): void {
  const close = element("button", { type: "button", "aria-label": texts.dismiss }, "×");
  const notice = element("p", {}, text, close);
  close.addEventListener("click", () => {
    notice.remove();
    viewer.focus();
  });
  notices.append(notice);
  while (notices.childElementCount > 5) {
    notices.firstElementChild?.remove();
  }
}
viewer.on("portBlocked", (blocked) => {
  reveal();
  void showBlocked(blocked);
});
viewer.on("ended", (reason) => void showEnd(reason));
// A new link opened in this very tab changes the fragment alone.
window.addEventListener("hashchange", () => {
  if (parseFragment(location.hash).ticket !== undefined) {
    location.reload();
  }
});
document.body.dataset["state"] = viewer.state;
viewer.start();

/** Calls action once what is painted now had time to be shown; soon in a hidden page, which shows nothing. */
function afterFrame(action: () => void): void {
  const act = once(() => setTimeout(action));
  requestAnimationFrame(() => requestAnimationFrame(act));
  setTimeout(act, quietMillis);
}

function once(action: () => void): () => void {
  let done = false;
  return () => {
    if (!done) {
      done = true;
      action();
    }
  };
}

/** Something that is asked for once, when start is first called. */
function later<T>(ask: () => Promise<T>): { promise: Promise<T>; start: () => void } {
  let start: () => void = () => {};
  const started = new Promise<void>((resolve) => {
    start = resolve;
  });
  return { promise: started.then(ask), start };
}

/** Keeps the fixed size over a reload, as the fragment is gone then. */
function keepSize(): void {
  try {
    if (fragment.ticket === undefined) {
      const size = parseSize(sessionStorage.getItem(sizeKey));
      if (size !== undefined && fragment.fixedSize === undefined) {
        fragment.fixedSize = size;
      }
    } else if (fragment.fixedSize === undefined) {
      sessionStorage.removeItem(sizeKey);
    }
    if (fragment.fixedSize !== undefined) {
      const { width, height } = fragment.fixedSize;
      sessionStorage.setItem(sizeKey, `${width}x${height}`);
    }
  } catch {
    // storage is blocked: a reload follows the window
  }
}

async function showBlocked(blocked: PortBlocked | undefined): Promise<void> {
  asking?.abort();
  overlay.querySelector(".card")?.remove();
  if (blocked === undefined) {
    return;
  }
  const { port, displayTicket } = blocked;
  const detail = element("div", {}, element("p", {}, texts.checkingPort));
  const card = element(
    "section",
    { class: "card", role: "alert" },
    element("h1", {}, texts.portTitle(port)),
    element("p", {}, texts.portBody(port)),
    detail,
    element("p", { class: "quiet" }, texts.retryingPort),
  );
  overlay.append(card);
  asking = new AbortController();
  const { signal } = asking;
  const answer = await askReachability(port, displayTicket, signal);
  if (!signal.aborted) {
    lastAnswer = answer;
    detail.replaceChildren(...explain(answer));
  }
}

let lastAnswer: Reachability | undefined;

function explain(answer: Reachability | undefined): Node[] {
  if (answer === undefined) {
    return [];
  }
  const hop = answer.hops.find(({ allow }) => !allow);
  if (hop === undefined) {
    return [element("p", {}, answer.ok ? texts.notBlocked : answer.symptom || texts.notBlocked)];
  }
  const list = element(
    "dl",
    {},
    element("dt", {}, texts.blockedBy),
    element(
      "dd",
      {},
      [hop.kind.replaceAll("-", " "), hop.resource].filter(Boolean).join(" "),
      ...(hop.rule ? [element("code", {}, hop.rule)] : []),
    ),
  );
  if (hop.why) {
    list.append(element("dd", {}, hop.why));
  }
  if (hop.fix) {
    list.append(element("dt", {}, texts.fix), element("dd", {}, hop.fix));
  }
  return [list];
}

async function showEnd(reason: EndReason): Promise<void> {
  asking?.abort();
  toolbar.close();
  notices.remove();
  const { title, body, code } = endText(reason);
  document.title = title;
  const heading = element("h1", { tabindex: "-1" }, title);
  const actions = element("div", { class: "actions" });
  const card = element("section", { class: "card" }, heading);
  if (body !== "") {
    card.append(element("p", {}, body));
  }
  if (reason.kind === "port") {
    card.append(...explain(lastAnswer));
  }
  card.append(
    actions,
    element("p", { class: "quiet" }, `${texts.codeLabel}: `, element("code", {}, code)),
  );
  overlay.replaceChildren(card);
  heading.focus();
  if ("resumable" in reason && reason.resumable) {
    const again = element("button", { type: "button", class: "primary" }, texts.tryAgain);
    again.addEventListener("click", () => location.reload());
    actions.append(again);
  }
  const { portalUrl } = await config.promise;
  if (portalUrl !== "") {
    const primary = actions.childElementCount === 0;
    actions.append(
      element(
        "a",
        { class: primary ? "button primary" : "button", href: portalUrl },
        texts.backToPortal,
      ),
    );
  }
}
