/** The portal's API of the public plane: /api/portal/v1. */

export interface Application {
  id: string;
  displayName: string;
  description: string;
  iconUrl: string;
}

export interface Me {
  stackName: string;
  stackDisplayName: string;
  description: string;
  userId: string;
  applications: Application[];
  /** The application that the streaming URL names; empty when the user chooses. */
  launch: string;
  /** "WIDTHxHEIGHT" or empty. */
  resolution: string;
  redirectUrl: string;
  feedbackUrl: string;
}

export interface SessionStatus {
  sessionId: string;
  state: "starting" | "ready" | "failed";
  /** When ready. */
  viewerUrl: string;
  code: string;
  reason: string;
}

/** An answer that is not what was asked for; code and reason are for the user. */
export class PortalError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, reason: string) {
    super(reason);
    this.name = "PortalError";
    this.status = status;
    this.code = code;
  }
}

export interface PortalApi {
  me(): Promise<Me>;
  launch(applicationId: string, signal: AbortSignal): Promise<SessionStatus>;
  session(id: string, signal: AbortSignal): Promise<SessionStatus>;
  signOut(): Promise<void>;
}

const base = "/api/portal/v1";

/** The API over fetch. Every answer is checked: a missing field becomes empty, a wrong shape an error. */
export const httpApi: PortalApi = {
  async me() {
    return parseMe(await call("GET", `${base}/me`));
  },
  async launch(applicationId, signal) {
    return parseStatus(await call("POST", `${base}/launch`, { applicationId }, signal));
  },
  async session(id, signal) {
    return parseStatus(
      await call("GET", `${base}/sessions/${encodeURIComponent(id)}`, undefined, signal),
    );
  },
  async signOut() {
    await call("POST", `${base}/signout`, {});
  },
};

async function call(
  method: string,
  url: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<unknown> {
  const request: RequestInit = {
    method,
    credentials: "same-origin",
    cache: "no-store",
    headers: { Accept: "application/json" },
  };
  if (signal !== undefined) {
    request.signal = signal;
  }
  if (body !== undefined) {
    request.headers = {
      Accept: "application/json",
      "Content-Type": "application/json",
      "X-Penstock-Portal": "1", // other sites cannot send it without asking
    };
    request.body = JSON.stringify(body);
  }
  let response: Response;
  try {
    response = await fetch(url, request);
  } catch (cause) {
    if (signal?.aborted) {
      throw cause;
    }
    throw new PortalError(0, "unreachable", "");
  }
  const text = await response.text();
  let value: unknown;
  try {
    value = text === "" ? {} : JSON.parse(text);
  } catch {
    value = undefined;
  }
  if (!response.ok || value === undefined) {
    const { code, reason } = record(value);
    throw new PortalError(
      response.status,
      string(code) || `http-${response.status}`,
      sentence(string(reason)),
    );
  }
  return value;
}

export function parseMe(value: unknown): Me {
  const me = record(value);
  const list = Array.isArray(me["applications"]) ? me["applications"] : [];
  return {
    stackName: string(me["stackName"]),
    stackDisplayName: string(me["stackDisplayName"]),
    description: string(me["description"]),
    userId: string(me["userId"]),
    applications: list.map((item: unknown) => {
      const application = record(item);
      const id = string(application["id"]);
      return {
        id,
        displayName: string(application["displayName"]) || id,
        description: string(application["description"]),
        iconUrl: string(application["iconUrl"]),
      };
    }),
    launch: string(me["launch"]),
    resolution: string(me["resolution"]),
    redirectUrl: webUrl(string(me["redirectUrl"])),
    feedbackUrl: webUrl(string(me["feedbackUrl"])),
  };
}

export function parseStatus(value: unknown): SessionStatus {
  const status = record(value);
  const state = status["state"];
  if (state !== "starting" && state !== "ready" && state !== "failed") {
    throw new PortalError(200, "bad-answer", "");
  }
  const viewerUrl = webUrl(string(status["viewerUrl"]));
  if (state === "ready" && viewerUrl === "") {
    throw new PortalError(200, "bad-answer", "");
  }
  return {
    sessionId: string(status["sessionId"]),
    state,
    viewerUrl,
    code: string(status["code"]),
    reason: sentence(string(status["reason"])),
  };
}

function record(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

/** The server's reasons begin in lower case and end without a period. */
function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return text === "" || /[.!?]$/.test(text) ? first : `${first}.`;
}

function string(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** The URL when it leads to the web, else empty: script URLs never become links or navigations. */
function webUrl(url: string): string {
  return /^https?:\/\/|^\/(?!\/)/.test(url) ? url : "";
}
