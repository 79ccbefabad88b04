import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type LaunchApi, PortalError, parseMe, parseStatus, type SessionStatus } from "./api.ts";
import { launch } from "./launch.ts";

const status = (
  state: SessionStatus["state"],
  more: Partial<SessionStatus> = {},
): SessionStatus => ({
  sessionId: "s-1",
  state,
  viewerUrl: state === "ready" ? "https://e.example/#t=a.b" : "",
  code: "",
  reason: "",
  ...more,
});

/** An API that answers in turn; an Error is thrown; the last answer repeats. */
function api(...answers: (SessionStatus | Error)[]): LaunchApi & { calls: string[] } {
  const calls: string[] = [];
  const next = async (call: string, signal: AbortSignal) => {
    calls.push(call);
    signal.throwIfAborted();
    const answer = answers.length > 1 ? answers.shift() : answers[0];
    if (answer instanceof Error) {
      throw answer;
    }
    return answer as SessionStatus;
  };
  return {
    calls,
    launch: ({ applicationId }, signal) => next(`launch ${applicationId}`, signal),
    session: (id, signal) => next(`session ${id}`, signal),
  };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

const never = new AbortController().signal;
const choice = {
  stackName: "demo",
  applicationId: "editor",
  window: { width: 800, height: 600, scale: 100 },
};

/** Runs the launch to its end in virtual time. */
async function run(portal: LaunchApi, signal = never): Promise<string> {
  const result = launch(portal, choice, signal).then(
    (url) => url,
    (error: unknown) =>
      error instanceof PortalError ? `${error.code}: ${error.message}` : String(error),
  );
  await vi.advanceTimersByTimeAsync(200_000);
  return result;
}

describe("launch", () => {
  it("answers at once when the session is ready", async () => {
    const portal = api(status("ready"));
    expect(await run(portal)).toBe("https://e.example/#t=a.b");
    expect(portal.calls).toEqual(["launch editor"]);
  });

  it("asks again while it starts, and launches once", async () => {
    const portal = api(status("starting"), status("starting"), status("ready"));
    expect(await run(portal)).toBe("https://e.example/#t=a.b");
    expect(portal.calls).toEqual(["launch editor", "session s-1", "session s-1"]);
  });

  it("reports a failed session with the server's reason", async () => {
    const portal = api(
      status("starting"),
      status("failed", { code: "no-capacity", reason: "The fleet is full." }),
    );
    expect(await run(portal)).toBe("no-capacity: The fleet is full.");
  });

  it("gives up after two minutes", async () => {
    const portal = api(status("starting"));
    expect(await run(portal)).toBe("timeout: ");
    expect(portal.calls.length).toBeLessThan(260);
  });

  it("survives a few lost questions but does not launch again", async () => {
    const lost = new PortalError(0, "unreachable", "");
    const portal = api(
      status("starting"),
      lost,
      lost,
      new PortalError(502, "http-502", ""),
      status("ready"),
    );
    expect(await run(portal)).toBe("https://e.example/#t=a.b");
    expect(portal.calls.filter((call) => call.startsWith("launch"))).toHaveLength(1);
    expect(await run(api(status("starting"), lost))).toBe("unreachable: ");
    expect(await run(api(lost))).toBe("unreachable: ");
  });

  it("stops at a refusal", async () => {
    const portal = api(status("starting"), new PortalError(401, "not-signed-in", "Sign in again."));
    expect(await run(portal)).toBe("not-signed-in: Sign in again.");
    expect(portal.calls).toHaveLength(2);
  });

  it("stops when the user cancels", async () => {
    const cancel = new AbortController();
    const portal = api(status("starting"));
    const running = run(portal, cancel.signal);
    cancel.abort();
    expect(await running).toMatch(/abort/i);
    expect(portal.calls.length).toBeLessThanOrEqual(2);
  });
});

describe("answers of the API", () => {
  it("become complete objects whatever is missing", () => {
    expect(parseMe(null).stacks).toEqual([]);
    const { stacks } = parseMe({ stacks: [{ name: "s", applications: [{ id: "xterm" }, 3] }, 4] });
    expect(stacks.map(({ displayName }) => displayName)).toEqual(["s", ""]);
    expect(stacks[0]?.applications).toEqual([
      { id: "xterm", displayName: "xterm", description: "", iconUrl: "" },
      { id: "", displayName: "", description: "", iconUrl: "" },
    ]);
  });

  it("never lead to a script", () => {
    const { stacks } = parseMe({
      stacks: [{ redirectUrl: "javascript:alert(1)", feedbackUrl: "//evil.example" }],
    });
    expect(stacks[0]?.redirectUrl).toBe("");
    expect(stacks[0]?.feedbackUrl).toBe("");
    expect(() => parseStatus({ state: "ready", viewerUrl: "javascript:alert(1)" })).toThrow(
      PortalError,
    );
    expect(parseStatus({ state: "ready", viewerUrl: "/stream/#t=a.b" }).viewerUrl).toBe(
      "/stream/#t=a.b",
    );
  });

  it("give reasons as sentences", () => {
    const reason = (text: string) => parseStatus({ state: "failed", reason: text }).reason;
    expect(reason("no machine became ready")).toBe("No machine became ready.");
    expect(reason("Ready?")).toBe("Ready?");
    expect(reason("")).toBe("");
  });

  it("are refused in an unknown state", () => {
    expect(() => parseStatus({ state: "odd" })).toThrow(PortalError);
    expect(() => parseStatus(undefined)).toThrow(PortalError);
  });
});
