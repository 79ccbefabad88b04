import {
  type ControlFromAgent,
  type ControlFromViewer,
  decodeControlFromViewer,
  encode,
  type Input,
} from "@penstock/protocol";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type FakeConnection, fakeConnect } from "../testing/fake_connection.ts";
import { FakeDisplay } from "../testing/fake_display.ts";
import { Session, type SessionOptions } from "./session.ts";
import { type KeyValues, StoredSession } from "./store.ts";

class FakeValues implements KeyValues {
  readonly values = new Map<string, string>();
  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.values.set(key, value);
  }
  removeItem(key: string): void {
    this.values.delete(key);
  }
}

let values: FakeValues;
let connections: FakeConnection[];
let display: FakeDisplay;
let log: string[];
let session: Session;

beforeEach(() => {
  vi.useFakeTimers();
  values = new FakeValues();
  log = [];
});
afterEach(() => {
  vi.useRealTimers();
});

function begin(options: Partial<SessionOptions> = {}): Session {
  const fake = fakeConnect();
  connections = fake.connections;
  display = new FakeDisplay();
  session = new Session({
    connect: fake.connect,
    display,
    store: new StoredSession(values),
    controlUrl: (host) => `wss://${host ?? "e"}/v1/channel/control`,
    displayUrl: (port, host) => `wss://${host ?? "e"}:${port}/v1/channel/display`,
    ticket: "first.sig",
    screen: { width: 801, height: 601, scale: 100 },
    fixedSize: false,
    events: {
      state: (state) => log.push(state),
      ended: (reason) => log.push(`end ${reason.kind} ${"code" in reason ? reason.code : ""}`),
      welcome: ({ sessionId }) => log.push(`welcome ${sessionId}`),
      drawn: (width, height) => log.push(`drawn ${width}x${height}`),
      cursor: ({ serial }) => log.push(`cursor ${serial}`),
      notice: ({ text }) => log.push(`notice ${text}`),
      portBlocked: (blocked) =>
        blocked && log.push(`blocked ${blocked.port} ${blocked.displayTicket}`),
    },
    now: () => performance.now(),
    random: () => 0.5,
    ...options,
  });
  session.start();
  return session;
}

const last = () => connections.at(-1) as FakeConnection;
const say = (message: ControlFromAgent) => last().message(encode(message));
const heard = (): ControlFromViewer[] =>
  last()
    .sent.splice(0)
    .map((bytes) => decodeControlFromViewer(bytes));
const kinds = () => heard().map(({ kind }) => kind);

function welcome(n = 1, more: { maxWidth?: number; capabilities?: number } = {}): void {
  say({
    kind: "welcome",
    version: 1,
    capabilities: 0,
    displayPort: 1400,
    maxWidth: 5120,
    maxHeight: 2880,
    sessionId: "s-1",
    application: "Editor",
    displayTicket: `display${n}.sig`,
    resumeTicket: `resume${n}.sig`,
    ...more,
  });
}

/** A session that streams. */
function streaming(options: Partial<SessionOptions> = {}): void {
  begin(options);
  last().open();
  welcome();
  display.draw();
  heard();
  log.length = 0;
}

function key(name: string): void {
  session.input({ kind: "key", down: true, flags: 0, code: name, key: name });
}
const inputs = () => heard().filter((m): m is Input => "seq" in m);

it("has the display channel prove that it lives when somebody uses the session", () => {
  streaming();
  expect(display.checks).toBe(0);
  key("KeyA");
  expect(display.checks).toBe(1);
  session.setHidden(true);
  session.setHidden(false);
  expect(display.checks).toBe(2);
});

describe("alternatives", () => {
  const alternatives = () => ["b", "c"];
  const url = (host: string) => `wss://${host}/v1/channel/control`;

  it("goes on at another host of the endpoint when one falls silent, with control and display", async () => {
    streaming({ alternatives });
    await vi.advanceTimersByTimeAsync(31_000); // no answer to pings
    expect(session.state).toBe("reconnecting");
    await vi.advanceTimersByTimeAsync(2000);
    expect(last()).toMatchObject({ url: url("b"), ticket: "resume1.sig" });
    last().close(1006, "");
    await vi.advanceTimersByTimeAsync(5000);
    expect(last()).toMatchObject({ url: url("c"), ticket: "resume1.sig" });
    last().open();
    welcome(2);
    expect(display.opens.at(-1)).toEqual({
      url: "wss://c:1400/v1/channel/display",
      ticket: "display2.sig",
    });
    display.draw();
    expect(session.state).toBe("streaming");
  });

  it("comes back to the page's own host after the others", async () => {
    streaming({ alternatives });
    last().close(1006, ""); // the connection was lost, the host may be well
    const tried: string[] = [];
    for (let i = 0; i < 4; i++) {
      await vi.advanceTimersByTimeAsync(10_000);
      tried.push(last().url);
      last().close(1006, "");
    }
    expect(tried).toEqual([url("e"), url("b"), url("c"), url("e")]);
  });
});

describe("connecting", () => {
  it("says hello with the window's size, opens display with its ticket, streams when drawn", () => {
    begin();
    expect(last()).toMatchObject({ url: "wss://e/v1/channel/control", ticket: "first.sig" });
    expect(session.state).toBe("connecting");
    last().open();
    expect(heard()).toEqual([
      { kind: "hello", version: 1, capabilities: 1, width: 801, height: 601, scale: 100, flags: 0 },
    ]);
    welcome();
    expect(display.opens).toEqual([
      { url: "wss://e:1400/v1/channel/display", ticket: "display1.sig" },
    ]);
    display.openOnly();
    expect(session.state).toBe("connecting");
    display.draw(800, 600);
    expect(log).toEqual(["welcome s-1", "streaming", "drawn 800x600"]);
    expect(values.getItem("penstock.resume")).toBe("resume1.sig");
  });

  it("asks for a fixed size and does not follow the window then", () => {
    streaming({ fixedSize: true, screen: { width: 1280, height: 720, scale: 100 } });
    session.resize({ width: 500, height: 500, scale: 100 });
    expect(heard()).toEqual([]);
  });

  it("keeps to the greatest screen of welcome", () => {
    begin({ screen: { width: 9000, height: 1000, scale: 200 } });
    last().open();
    heard();
    welcome(1, { maxWidth: 5120 });
    expect(heard()).toContainEqual({ kind: "resize", width: 5120, height: 1000, scale: 200 });
    session.resize({ width: 30, height: 99, scale: 100 });
    expect(heard()).toEqual([{ kind: "resize", width: 64, height: 99, scale: 100 }]);
    expect(session.maxSize).toMatchObject({ width: 5120 });
    // The same screen is not asked for again, but another scale is.
    expect(session.resize({ width: 20, height: 99, scale: 100 })).toBeUndefined();
    expect(heard()).toEqual([]);
    const scaled = { width: 64, height: 99, scale: 150 };
    expect(session.resize({ ...scaled, width: 20 })).toEqual(scaled);
    expect(heard()).toEqual([{ kind: "resize", ...scaled }]);
  });

  it("asks for a second monitor beside the first, and again after a reconnect", () => {
    begin();
    last().open();
    heard();
    welcome(1, { capabilities: 1 });
    heard();
    const wish = { width: 800, height: 600, scale: 100, second: { width: 640, height: 700 } };
    const monitors = {
      kind: "monitors",
      scale: 100,
      monitors: [
        { width: 800, height: 600 },
        { width: 640, height: 700 },
      ],
    };
    expect(session.takesSecond).toBe(true);
    expect(session.resize(wish)).toEqual(wish);
    expect(heard()).toEqual([monitors]);
    session.resize({ ...wish, width: 4000, second: { width: 4000, height: 700 } });
    expect(heard()).toEqual([
      {
        ...monitors,
        monitors: [
          { width: 2560, height: 600 },
          { width: 2560, height: 700 },
        ],
      },
    ]);
    session.resize(wish);
    heard();
    last().close(1006, "");
    vi.advanceTimersByTime(2000);
    last().open();
    expect(heard()).toEqual([expect.objectContaining({ kind: "hello", width: 800, height: 600 })]);
    welcome(2, { capabilities: 1 });
    expect(heard()).toContainEqual(monitors);
    session.resize({ width: 800, height: 600, scale: 100 });
    expect(heard()).toEqual([{ kind: "resize", width: 800, height: 600, scale: 100 }]);
  });

  it("asks for no second monitor where the agent takes none", () => {
    streaming();
    expect(session.takesSecond).toBe(false);
    session.resize({ width: 700, height: 600, scale: 100, second: { width: 640, height: 700 } });
    expect(heard()).toEqual([{ kind: "resize", width: 700, height: 600, scale: 100 }]);
  });

  it("shows a cursor again that it keeps, of this connection alone", () => {
    streaming();
    const cursor = (serial: number): ControlFromAgent => ({
      kind: "cursor",
      serial,
      width: 1,
      height: 1,
      hotX: 0,
      hotY: 0,
      rgba: Uint8Array.of(1, 2, 3, 255),
    });
    for (let serial = 1; serial <= 65; serial++) {
      say(cursor(serial));
    }
    log.length = 0;
    say({ kind: "cursor-again", serial: 65 });
    say({ kind: "cursor-again", serial: 1 }); // the oldest of 65
    say({ kind: "cursor-again", serial: 2 });
    expect(log).toEqual(["cursor 65", "cursor 2"]);
  });

  it("uses the stored ticket without one of its own, and ends without any", () => {
    values.setItem("penstock.resume", "stored.sig");
    begin({ ticket: undefined });
    expect(last().ticket).toBe("stored.sig");
    values.removeItem("penstock.resume");
    begin({ ticket: undefined });
    expect(connections).toEqual([]);
    expect(log).toContain("end fault no-ticket");
  });

  it("keeps the first ticket for a reload before welcome", () => {
    begin();
    expect(values.getItem("penstock.resume")).toBe("first.sig");
    last().open();
    welcome();
    expect(values.getItem("penstock.resume")).toBe("resume1.sig");
  });

  it("gives up after a bounded time when nothing answers", () => {
    begin();
    for (let i = 0; i < 100 && session.state !== "ended"; i++) {
      last().lose();
      vi.advanceTimersByTime(5000);
    }
    expect(log).toEqual(["ended", "end closed unreachable"]);
    expect(connections.length).toBeLessThan(20);
  });

  it("refuses messages before welcome and a second welcome", () => {
    begin();
    last().open();
    say({ kind: "tickets", displayTicket: "", resumeTicket: "x.y" });
    expect(last().closedWith?.code).toBe(4400);
    begin();
    last().open();
    welcome();
    welcome();
    expect(last().closedWith?.code).toBe(4400);
  });

  it("ends when the browser cannot decode", () => {
    begin();
    display.fail("blocked");
    expect(log).toEqual(["ended", "end fault no-decoder"]);
  });
});

describe("a lost control connection", () => {
  it("resumes with the newest ticket, and closes display until welcome", () => {
    streaming();
    say({ kind: "tickets", displayTicket: "", resumeTicket: "newer.sig" });
    last().lose();
    expect(log).toEqual(["reconnecting"]);
    expect(display.active).toBe(false);
    vi.advanceTimersByTime(250);
    expect(last().ticket).toBe("newer.sig");
    last().open();
    welcome(2);
    expect(display.opens.at(-1)?.ticket).toBe("display2.sig");
    expect(session.state).toBe("reconnecting");
    display.draw();
    expect(session.state).toBe("streaming");
    expect(values.getItem("penstock.resume")).toBe("resume2.sig");
  });

  it("never replays input and never goes back in sequence", () => {
    streaming();
    key("a");
    key("b");
    expect(inputs().map(({ seq }) => seq)).toEqual([1, 2]);
    last().lose();
    key("lost");
    vi.advanceTimersByTime(250);
    last().open();
    key("lost too");
    welcome(2);
    key("lost as well");
    display.draw();
    heard();
    key("c");
    expect(inputs()).toEqual([expect.objectContaining({ seq: 3, code: "c" })]);
  });

  it("backs off, bounded in the interval and in total, and can be resumed later", () => {
    streaming({ reconnectMillis: 60_000 });
    const begun = performance.now();
    const waits: number[] = [];
    last().lose();
    const ended = () => session.state === "ended";
    while (!ended()) {
      const count = connections.length;
      const from = performance.now();
      while (connections.length === count && !ended()) {
        vi.advanceTimersByTime(50);
      }
      waits.push(performance.now() - from);
      last().lose();
    }
    expect(waits.slice(0, 6)).toEqual([250, 500, 1000, 2000, 4000, 5000]);
    expect(Math.max(...waits)).toBeLessThanOrEqual(5000);
    expect(performance.now() - begun).toBeLessThanOrEqual(60_000);
    expect(log).toEqual(["reconnecting", "ended", "end closed lost"]);
    expect(values.getItem("penstock.resume")).toBe("resume1.sig");
  });

  it("retries at once when the network comes back", () => {
    streaming();
    last().lose();
    const count = connections.length;
    session.probe();
    expect(connections).toHaveLength(count + 1);
    vi.advanceTimersByTime(1000);
    expect(connections).toHaveLength(count + 1);
  });

  for (const [code, name] of [
    [4401, "bad-ticket"],
    [4402, "ticket-used"],
    [4404, "no-session"],
    [4405, "ticket-expired"],
    [4409, "replaced"],
    [4410, "ended"],
    [4426, "version"],
  ] as const) {
    it(`ends on ${name} and forgets the ticket`, () => {
      streaming();
      last().lose(code, "why");
      expect(log).toEqual(["ended", `end refused ${code}`]);
      expect(values.values.size).toBe(0);
      vi.advanceTimersByTime(60_000);
      expect(connections).toHaveLength(1);
    });
  }

  for (const code of [1006, 1011, 4408, 4500, 4503]) {
    it(`retries on ${code}`, () => {
      streaming();
      last().lose(code);
      vi.advanceTimersByTime(300);
      expect(connections).toHaveLength(2);
    });
  }
});

describe("silence", () => {
  const move = (x: number) => session.input({ kind: "pointer", x, y: 1, buttons: 0 });
  /** Answers what was asked, if something was; returns whether. */
  const answer = () => {
    const ping = heard().find((m) => m.kind === "ping");
    if (ping !== undefined) {
      say({ kind: "pong", time: ping.time });
    }
    return ping !== undefined;
  };
  /** A session in which nothing happens. */
  const still = () => {
    streaming();
    say({ kind: "pong", time: 0n });
    vi.advanceTimersByTime(5000);
    answer();
    heard();
  };

  it("costs nothing while nothing happens: no message and no timer", () => {
    still();
    expect(vi.getTimerCount()).toBe(0);
    vi.advanceTimersByTime(8 * 3_600_000);
    expect(kinds()).toEqual([]);
    expect(session.state).toBe("streaming");
  });

  it("asks once after something happened, and measures the round trip", () => {
    still();
    for (let i = 0; i < 10; i++) {
      session.displayActive();
      vi.advanceTimersByTime(2500);
      const ping = heard().find((m) => m.kind === "ping");
      expect(ping).toBeDefined();
      vi.advanceTimersByTime(40);
      say({ kind: "pong", time: ping?.time ?? 0n });
      vi.advanceTimersByTime(100_000);
      expect(kinds()).toEqual([]);
    }
    expect(session.rttMs).toBeCloseTo(40);
    expect(log).toEqual([]);
  });

  it("gives the connection up 30 s after the first input that nothing answers, however many follow", () => {
    still();
    move(1);
    for (let i = 0; i < 29; i++) {
      vi.advanceTimersByTime(1000);
      move(i);
    }
    expect(kinds().filter((kind) => kind === "ping")).toHaveLength(1);
    expect(session.state).toBe("streaming");
    vi.advanceTimersByTime(1100);
    expect(log[0]).toBe("reconnecting");
  });

  it("finds a dead connection soon when somebody comes back to a quiet one", () => {
    still();
    vi.advanceTimersByTime(3_600_000);
    move(1);
    expect(kinds()).toEqual(["pointer", "ping"]);
    vi.advanceTimersByTime(4100);
    expect(log[0]).toBe("reconnecting");
  });

  it("misses a picture that changed regularly", () => {
    still();
    for (let i = 0; i < 5; i++) {
      session.displayActive();
      vi.advanceTimersByTime(2500);
      expect(answer()).toBe(true);
      vi.advanceTimersByTime(7500);
      expect(answer()).toBe(false);
    }
    vi.advanceTimersByTime(10_100); // no picture came in two turns
    expect(kinds()).toEqual(["ping"]);
    vi.advanceTimersByTime(30_100);
    expect(log[0]).toBe("reconnecting");
  });

  it("keeps connections busy where quiet ones are cut", () => {
    still();
    for (let i = 0; i < 2; i++) {
      vi.advanceTimersByTime(60_000);
      last().lose(1006);
      vi.advanceTimersByTime(2000);
      last().open();
      welcome(i + 2);
      display.draw();
      vi.advanceTimersByTime(3000);
      answer();
      heard();
    }
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(15_000);
      expect(answer()).toBe(true);
    }
  });

  it("answers pings", () => {
    streaming();
    say({ kind: "ping", time: 99n });
    expect(heard()).toEqual([{ kind: "pong", time: 99n }]);
  });

  it("finds a dead connection soon after a hint", () => {
    streaming();
    session.probe();
    vi.advanceTimersByTime(4100);
    expect(log[0]).toBe("reconnecting");
  });
});

describe("a lost display connection", () => {
  it("asks for a new ticket and opens again when it comes", () => {
    streaming();
    display.lose();
    expect(session.state).toBe("reconnecting");
    vi.advanceTimersByTime(500);
    expect(kinds()).toEqual(["need-display-ticket"]);
    say({ kind: "tickets", displayTicket: "d2.sig", resumeTicket: "r2.sig" });
    expect(display.opens.at(-1)?.ticket).toBe("d2.sig");
    display.draw();
    expect(session.state).toBe("streaming");
  });

  it("uses a ticket that came in advance", () => {
    streaming();
    say({ kind: "tickets", displayTicket: "spare.sig", resumeTicket: "r2.sig" });
    expect(display.opens).toHaveLength(1);
    vi.advanceTimersByTime(1000);
    display.lose();
    vi.advanceTimersByTime(0);
    expect(display.opens.at(-1)?.ticket).toBe("spare.sig");
    expect(heard()).toEqual([]);
  });

  it("names a port that cannot be reached, keeps trying, and recovers", () => {
    begin();
    last().open();
    welcome();
    display.lose(1006, "", false);
    vi.advanceTimersByTime(500);
    display.lose(4408, "no answer to the handshake", false);
    expect(log).toContain("blocked 1400 display1.sig");
    expect(session.state).toBe("connecting");
    vi.advanceTimersByTime(3000);
    expect(display.opens).toHaveLength(3);
    expect(display.opens.every(({ ticket }) => ticket === "display1.sig")).toBe(true);
    display.draw();
    expect(session.state).toBe("streaming");
  });

  it("ends when the port stays blocked", () => {
    begin();
    last().open();
    welcome();
    for (let i = 0; i < 200 && session.state !== "ended"; i++) {
      display.lose(1006, "", false);
      vi.advanceTimersByTime(3000);
      say({ kind: "ping", time: 1n });
    }
    expect(log.slice(-2)).toEqual(["ended", "end port port-blocked"]);
  });

  it("ends when the picture cannot be decoded again and again", () => {
    streaming();
    for (let i = 0; i < 10 && session.state !== "ended"; i++) {
      display.lose(4400, "update: too short");
      vi.advanceTimersByTime(3000);
      say({ kind: "tickets", displayTicket: `d${i}.sig`, resumeTicket: "r.sig" });
      display.draw();
    }
    expect(log.slice(-2)).toEqual(["ended", "end refused 4400"]);
  });

  it("opens again after its worker restarted", () => {
    streaming();
    session.displayRestarted();
    vi.advanceTimersByTime(500);
    expect(kinds()).toEqual(["need-display-ticket"]);
  });
});

describe("the end", () => {
  it("reports what the agent says, closes everything and forgets", () => {
    streaming();
    say({ kind: "ended", code: 4, reason: "idle" });
    last().lose(4410);
    expect(log).toEqual(["ended", "end ended 4"]);
    expect(display.active).toBe(false);
    expect(values.values.size).toBe(0);
    vi.advanceTimersByTime(120_000);
    expect(connections).toHaveLength(1);
  });

  it("asks the agent to end, and ends anyway when it does not answer", () => {
    streaming();
    session.endSession();
    expect(kinds()).toEqual(["end"]);
    vi.advanceTimersByTime(3000);
    expect(log).toEqual(["ended", "end closed by-user"]);
  });

  it("keeps the ticket when the viewer only leaves", () => {
    streaming();
    session.leave();
    expect(values.getItem("penstock.resume")).toBe("resume1.sig");
  });
});

describe("visibility", () => {
  it("tells changes, and again after a reconnect", () => {
    streaming();
    session.setHidden(true);
    session.setHidden(true);
    expect(heard()).toEqual([{ kind: "visibility", hidden: true }]);
    last().lose();
    vi.advanceTimersByTime(250);
    last().open();
    heard();
    welcome(2);
    expect(heard()).toContainEqual({ kind: "visibility", hidden: true });
    session.setHidden(false);
    expect(heard()).toContainEqual({ kind: "visibility", hidden: false });
  });
});
