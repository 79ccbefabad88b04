// The second monitor of a session: a window that the session's page opened. It has no connection of its own: the
// first window's worker paints its canvas, and its input goes through the first window's session.
import { type Capture, captureInput } from "../input/capture.ts";
import { texts } from "../texts.ts";
import type { SecondHost } from "../viewer.ts";
import { element } from "./dom.ts";
import { listenForShortcuts } from "./shortcuts.ts";
import { Stage } from "./stage.ts";

const container = document.querySelector<HTMLElement>("#viewer") as HTMLElement;
const host = hostOf(window.opener);
if (host === undefined) {
  container.append(element("p", { class: "alone", role: "alert" }, texts.secondAlone));
} else {
  join(host);
}

/** The page that opened this one; undefined when there is none, or it belongs to another site. */
function hostOf(opener: unknown): SecondHost | undefined {
  try {
    return (opener as { penstockSecond?: SecondHost } | null)?.penstockSecond;
  } catch {
    return undefined;
  }
}

function join(first: SecondHost): void {
  const abort = new AbortController();
  const { signal } = abort;
  const stage = new Stage(container, {
    settled: () => seat.resized(stage.box),
    zoomed: () => {},
  });
  const field = element("textarea", {
    class: "penstock-keys",
    "aria-label": texts.keyboardLabel,
    autocapitalize: "off",
    autocomplete: "off",
    spellcheck: "false",
  });
  stage.element.append(field);
  const status = element("p", { class: "status", role: "status" }, texts.starting);
  const overlay = element("div", { class: "overlay" }, status);
  container.after(overlay);
  let capture: Capture | undefined; // join already tells what there is to show
  const seat = first.join({
    box: stage.box,
    canvas() {
      const canvas = element("canvas", {
        id: "screen",
        role: "img",
        "aria-label": texts.secondLabel,
      });
      stage.setCanvas(canvas);
      return canvas.transferControlToOffscreen();
    },
    show(size) {
      status.textContent = "";
      stage.setPicture(size);
      capture?.began();
    },
    cursor(cursor) {
      stage.setCursor(cursor);
      capture?.cursorChanged();
    },
    state(state) {
      document.body.dataset["state"] = state;
      stage.element.dataset["state"] = state;
      status.textContent = state === "reconnecting" ? texts.reconnecting : "";
    },
    hidden: () => document.visibilityState === "hidden",
    close: () => window.close(),
  });
  document.title = texts.secondTitle(seat.title);
  stage.follow(signal);
  capture = captureInput({
    settings: seat.settings,
    cursorHidden: seat.cursorHidden,
    refused: seat.refused,
    stage: stage.element,
    field,
    send: seat.send,
    live: seat.live,
    toRemote: (clientX, clientY) => stage.toRemote(clientX, clientY),
    zoomAt: (factor, clientX, clientY) => stage.zoomAt(factor, clientX, clientY),
    panBy: (dx, dy) => stage.panBy(dx, dy),
    leave: seat.leave,
    signal,
  });
  listenForShortcuts(
    window,
    {
      KeyF: () => void fullScreen(),
      KeyM: () => window.close(),
    },
    signal,
  );
  document.addEventListener("visibilitychange", seat.seen, { signal });
  window.addEventListener("pagehide", () => {
    abort.abort();
    seat.left();
  });
  field.focus({ preventScroll: true });
}

async function fullScreen(): Promise<void> {
  if (document.fullscreenElement !== null) {
    await document.exitFullscreen();
  } else {
    await document.documentElement.requestFullscreen({ navigationUI: "hide" }).catch(() => {});
  }
}
