import { type Choice, type LaunchApi, PortalError, type SessionStatus } from "./api.ts";

/** How long a session may take to start. */
export const launchMillis = 120_000;
/** Between two questions, should the server answer at once that the session still starts. */
const pauseMillis = 500;
/** Lost questions in a row before the launch is given up; the launch itself is never repeated. */
const maxLost = 5;

/**
 * Starts an application and waits until its viewer can be opened; answers the viewer's URL. Throws PortalError:
 * "timeout" after launchMillis, "failed" codes of the server, or what the API refused with.
 */
export async function launch(api: LaunchApi, choice: Choice, signal: AbortSignal): Promise<string> {
  const bound = new AbortController();
  const cancel = () => bound.abort(signal.reason);
  signal.addEventListener("abort", cancel, { once: true });
  const timer = setTimeout(() => bound.abort(), launchMillis);
  try {
    signal.throwIfAborted();
    let status = await api.launch(choice, bound.signal);
    let lost = 0;
    while (status.state === "starting") {
      await pause(pauseMillis, bound.signal);
      try {
        status = await api.session(status.sessionId, bound.signal);
        lost = 0;
      } catch (cause) {
        if (!(cause instanceof PortalError) || !isPassing(cause) || ++lost >= maxLost) {
          throw cause;
        }
      }
    }
    return ready(status);
  } catch (cause) {
    if (bound.signal.aborted && !signal.aborted) {
      throw new PortalError(0, "timeout", "");
    }
    throw cause;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", cancel);
  }
}

function ready(status: SessionStatus): string {
  if (status.state === "failed") {
    throw new PortalError(200, status.code || "failed", status.reason);
  }
  return status.viewerUrl;
}

function isPassing(error: PortalError): boolean {
  return error.status === 0 || error.status >= 500;
}

function pause(millis: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, millis);
    if (signal.aborted) {
      abort();
    } else {
      signal.addEventListener("abort", abort, { once: true });
    }
  });
}
