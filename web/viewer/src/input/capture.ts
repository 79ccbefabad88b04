import { Keyboard, type SendInput } from "./keyboard.ts";
import { type Point, Pointer } from "./pointer.ts";

export interface CaptureOptions {
  /** Receives pointer events; covers the picture and its surroundings. */
  stage: HTMLElement;
  /** Has the focus while the session gets the keys; input methods compose in it. */
  field: HTMLTextAreaElement;
  send: SendInput;
  /** Whether input reaches the session now. */
  live: () => boolean;
  /** Remote pixel under a point of the window, kept inside the screen. */
  toRemote: (clientX: number, clientY: number) => Point | undefined;
  /** Two fingers zoom by a factor around a point of the window. */
  zoomAt?: (factor: number, clientX: number, clientY: number) => void;
  /** Two fingers move a picture that is larger than the window, in CSS pixels. */
  panBy?: (dx: number, dy: number) => void;
  /** The user pressed Ctrl+Alt+Shift+Q. */
  leave: () => void;
  signal: AbortSignal;
}

/** Listens to pointer, wheel, keyboard and composition events until signal ends. */
export function captureInput(options: CaptureOptions): void {
  const { stage, field, live, toRemote, leave, signal } = options;
  let held = false; // something may be down in the session
  const send: SendInput = (input) => {
    if (live() && (held || input.kind !== "release-all")) {
      held = input.kind !== "release-all";
      options.send(input);
    }
  };
  const keyboard = new Keyboard(send);
  const pointer = new Pointer(send, () => performance.now());
  let frame = 0;

  const release = () => {
    keyboard.releaseAll();
    pointer.reset();
  };

  const point = (event: PointerEvent) => {
    const at = live() ? toRemote(event.clientX, event.clientY) : undefined;
    if (at === undefined || !event.isPrimary) {
      return;
    }
    if (pointer.update(at, event.type === "pointercancel" ? 0 : event.buttons) && frame === 0) {
      frame = requestAnimationFrame(() => {
        frame = 0;
        pointer.flush();
      });
    }
  };
  // Raw updates come before the frame that pointermove waits for; not every browser and context has them.
  const move = "onpointerrawupdate" in window ? "pointerrawupdate" : "pointermove";
  stage.addEventListener(move as "pointermove", point, { signal });
  if (move !== "pointermove") {
    stage.addEventListener("pointermove", point, { signal });
  }
  stage.addEventListener(
    "pointerdown",
    (event) => {
      event.preventDefault();
      if (event.isPrimary) {
        stage.setPointerCapture(event.pointerId);
      }
      // Input methods put their window where the field is.
      field.style.left = `${event.clientX}px`;
      field.style.top = `${event.clientY}px`;
      field.focus({ preventScroll: true });
      point(event);
    },
    { signal },
  );
  stage.addEventListener("pointerup", point, { signal });
  stage.addEventListener("pointercancel", point, { signal });
  for (const name of ["contextmenu", "mousedown", "mouseup", "auxclick", "dragstart"] as const) {
    // mousedown would take the focus from the field; mouseup of the side buttons would leave the page
    stage.addEventListener(name, (event) => event.preventDefault(), { signal });
  }
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const at = live() ? toRemote(event.clientX, event.clientY) : undefined;
      if (at !== undefined) {
        pointer.wheel(at, event as WheelEvent & { wheelDeltaX?: number; wheelDeltaY?: number });
      }
    },
    { signal, passive: false },
  );

  const keyDown = (event: KeyboardEvent) => {
    const outcome = keyboard.keyDown(event);
    if (outcome !== "browser") {
      event.preventDefault();
    }
    if (outcome === "leave") {
      pointer.reset();
      leave();
    }
  };
  const keyUp = (event: KeyboardEvent) => {
    if (keyboard.keyUp(event) !== "browser") {
      event.preventDefault();
    }
  };
  field.addEventListener("keydown", keyDown, { signal });
  field.addEventListener("keyup", keyUp, { signal });
  // When nothing has the focus, as after the focused element went away, keys are the session's too.
  document.addEventListener(
    "keydown",
    (event) => {
      if (event.target === document.body && live()) {
        field.focus({ preventScroll: true });
        keyDown(event);
      }
    },
    { signal },
  );
  field.addEventListener(
    "compositionend",
    (event) => {
      field.value = "";
      keyboard.text(event.data);
    },
    { signal },
  );
  field.addEventListener(
    "input",
    (event) => {
      if (event instanceof InputEvent && event.isComposing) {
        return;
      }
      const text = field.value;
      field.value = "";
      keyboard.text(text);
    },
    { signal },
  );
  field.addEventListener("blur", release, { signal });
  window.addEventListener("blur", release, { signal });
  signal.addEventListener("abort", () => cancelAnimationFrame(frame));
}
