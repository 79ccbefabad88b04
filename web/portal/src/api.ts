/** The portal's API of the public plane: /api/portal/v1. */

export interface Application {
  id: string;
  displayName: string;
  description: string;
  iconUrl: string;
}

/** A stack of the visitor's with what can be started from it. */
export interface Stack {
  name: string;
  displayName: string;
  description: string;
  /** Why nothing of it can be started now; empty when it can. */
  unavailable: string;
  redirectUrl: string;
  feedbackUrl: string;
  applications: Application[];
}

export interface Me {
  userId: string;
  /** How the visitor signed in: API, SAML or USERPOOL. */
  authType: string;
  stacks: Stack[];
  /** The application that the streaming URL names; empty when the user chooses. */
  launch: string;
  /** "WIDTHxHEIGHT" or empty. */
  resolution: string;
}

/** What a visitor who is not signed in can do about it. */
export interface SignIn {
  /** Users with a name and password exist. */
  password: boolean;
  providers: { name: string; url: string }[];
  /** Where an unfinished sign-in is: "new-password", "second-factor", "enrol"; empty: none was begun. */
  step: string;
  userId: string;
}

/** A second factor that is being added. */
export interface Enrolment {
  secret: string;
  /** Rows of the QR code: "1" is a dark module. */
  qr: string[];
}

export interface Account {
  secondFactor: boolean;
  recoveryCodes: number;
  factorAllowed: boolean;
  factorRemovable: boolean;
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
  /** How to sign in, when that is what is missing. */
  readonly signIn: SignIn | undefined;

  constructor(status: number, code: string, reason: string, signIn?: SignIn) {
    super(reason);
    this.name = "PortalError";
    this.status = status;
    this.code = code;
    this.signIn = signIn;
  }
}

export interface PortalApi extends LaunchApi {
  me(): Promise<Me>;
  signIn(userName: string, password: string): Promise<void>;
  newPassword(password: string): Promise<void>;
  code(code: string): Promise<void>;
  enrol(): Promise<Enrolment>;
  /** Answers the recovery codes. */
  confirmFactor(code: string): Promise<string[]>;
  requestReset(userName: string): Promise<void>;
  reset(userName: string, code: string, password: string): Promise<void>;
  account(): Promise<Account>;
  changePassword(old: string, password: string): Promise<void>;
  addFactor(password: string): Promise<Enrolment>;
  removeFactor(password: string): Promise<void>;
  signOut(everywhere: boolean): Promise<void>;
}

/** The part of the API that starts applications. */
export interface LaunchApi {
  launch(choice: Choice, signal: AbortSignal): Promise<SessionStatus>;
  session(id: string, signal: AbortSignal): Promise<SessionStatus>;
}

/** The user's window, whose size and scale the screen has when the first application starts: device pixels, percent of 96 dpi. */
export interface WindowSize {
  width: number;
  height: number;
  scale: number;
}

/** An application of a stack, and where it will be shown. */
export interface Choice {
  stackName: string;
  applicationId: string;
  window: WindowSize;
}

const base = "/api/portal/v1";

/** The API over fetch. Every answer is checked: a missing field becomes empty, a wrong shape an error. */
export const httpApi: PortalApi = {
  async me() {
    return parseMe(await call("GET", `${base}/me`));
  },
  async launch(choice, signal) {
    return parseStatus(await call("POST", `${base}/launch`, choice, signal));
  },
  async session(id, signal) {
    return parseStatus(
      await call("GET", `${base}/sessions/${encodeURIComponent(id)}`, undefined, signal),
    );
  },
  async signIn(userName, password) {
    await call("POST", `${base}/signin`, { userName, password });
  },
  async newPassword(password) {
    await call("POST", `${base}/signin/new-password`, { password });
  },
  async code(code) {
    await call("POST", `${base}/signin/code`, { code });
  },
  async enrol() {
    return parseEnrolment(await call("POST", `${base}/signin/enrol`, {}));
  },
  async confirmFactor(code) {
    const answer = record(await call("POST", `${base}/signin/enrol/confirm`, { code }));
    return strings(answer["recoveryCodes"]);
  },
  async requestReset(userName) {
    await call("POST", `${base}/reset`, { userName });
  },
  async reset(userName, code, password) {
    await call("POST", `${base}/reset/confirm`, { userName, code, password });
  },
  async account() {
    const account = record(await call("GET", `${base}/account`));
    const left = account["recoveryCodes"];
    return {
      secondFactor: account["secondFactor"] === true,
      recoveryCodes: typeof left === "number" ? left : 0,
      factorAllowed: account["factorAllowed"] === true,
      factorRemovable: account["factorRemovable"] === true,
    };
  },
  async changePassword(old, password) {
    await call("POST", `${base}/account/password`, { old, password });
  },
  async addFactor(password) {
    return parseEnrolment(await call("POST", `${base}/account/second-factor`, { password }));
  },
  async removeFactor(password) {
    await call("POST", `${base}/account/second-factor/remove`, { password });
  },
  async signOut(everywhere) {
    await call("POST", `${base}/signout`, { everywhere });
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
    const { code, reason, signIn } = record(value);
    throw new PortalError(
      response.status,
      string(code) || `http-${response.status}`,
      sentence(string(reason)),
      signIn === undefined ? undefined : parseSignIn(signIn),
    );
  }
  return value;
}

export function parseMe(value: unknown): Me {
  const me = record(value);
  return {
    userId: string(me["userId"]),
    authType: string(me["authType"]),
    stacks: list(me["stacks"]).map(parseStack),
    launch: string(me["launch"]),
    resolution: string(me["resolution"]),
  };
}

function parseStack(value: unknown): Stack {
  const stack = record(value);
  const name = string(stack["name"]);
  return {
    name,
    displayName: string(stack["displayName"]) || name,
    description: string(stack["description"]),
    unavailable: sentence(string(stack["unavailable"])),
    redirectUrl: webUrl(string(stack["redirectUrl"])),
    feedbackUrl: webUrl(string(stack["feedbackUrl"])),
    applications: list(stack["applications"]).map((item) => {
      const application = record(item);
      const id = string(application["id"]);
      return {
        id,
        displayName: string(application["displayName"]) || id,
        description: string(application["description"]),
        iconUrl: string(application["iconUrl"]),
      };
    }),
  };
}

function parseSignIn(value: unknown): SignIn {
  const signIn = record(value);
  const providers = list(signIn["providers"]).map((item) => {
    const provider = record(item);
    return { name: string(provider["name"]), url: webUrl(string(provider["url"])) };
  });
  return {
    password: signIn["password"] === true,
    providers: providers.filter(({ name, url }) => name !== "" && url !== ""),
    step: string(signIn["step"]),
    userId: string(signIn["userId"]),
  };
}

function parseEnrolment(value: unknown): Enrolment {
  const enrolment = record(value);
  return { secret: string(enrolment["secret"]), qr: strings(enrolment["qr"]) };
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

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function strings(value: unknown): string[] {
  return list(value).map(string);
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
