import { Keyboard, type KeyboardSettings, type SendInput } from "./keyboard.ts";
import { followLayout } from "./layout.ts";
import { type Point, Pointer } from "./pointer.ts";
import { TextField } from "./text_field.ts";
import { Touch } from "./touch.ts";

export interface CaptureOptions {
  /** Receives pointer events; covers the picture and its surroundings. */
  stage: HTMLElement;
  /** Has the focus while the session gets the keys; input methods compose in it. */
  field: HTMLTextAreaElement;
  settings: Partial<KeyboardSettings>;
  send: SendInput;
  /** Whether input reaches the session now. */
  live: () => boolean;
  /** Remote pixel under a point of the window, kept inside the screen. */
  toRemote: (clientX: number, clientY: number) => Point | undefined;
  /** Two fingers, or a touchpad's pinch, zoom by a factor around a point of the window. */
  zoomAt?: (factor: number, clientX: number, clientY: number) => void;
  /** Two fingers move a picture that is larger than the window, in CSS pixels. */
  panBy?: (dx: number, dy: number) => void;
  /** The application hides its pointer. */
  cursorHidden: () => boolean;
  /** The user pressed Ctrl+Alt+Shift+Q. */
  leave: () => void;
  /** A text was too long to be typed. */
  refused: () => void;
  signal: AbortSignal;
}

export interface Capture {
  readonly settings: KeyboardSettings;
  /** Opens the screen keyboard of a phone, by a gesture of the user's, and keeps it open until false. */
  showKeyboard(shown: boolean): void;
  /** Locks the pointer for games and the like, by a gesture of the user's, until Escape or false. */
  lockPointer(locked: boolean): void;
  /** The application shows or hides its pointer. */
  cursorChanged(): void;
  /** The session gets input from now on. */
  began(): void;
}

/** CSS pixels that two fingers move for one notch of the wheel. */
const scrollPixels = 40;

/** Listens to pointer, wheel, keyboard, touch and composition events until signal ends. */
export function captureInput(options: CaptureOptions): Capture {
  const { stage, field, live, toRemote, leave, signal } = options;
  let held = false; // something may be down in the session
  const send: SendInput = (input) => {
    if (live() && (held || input.kind !== "release-all")) {
      held = input.kind === "keyboard" ? held : input.kind !== "release-all";
      options.send(input);
    }
  };
  const keyboard = new Keyboard(send, options.settings);
  const pointer = new Pointer(send, () => performance.now());
  const text = new TextField(field, keyboard, options.refused);
  const touch = new Touch({
    pointer: (at, buttons) => update(at, buttons),
    scroll: (at, dx, dy) => {
      const point = remote(at.x, at.y);
      if (point !== undefined) {
        const unit = 100 / scrollPixels; // pixels of a wheel that turns a notch a hundred
        pointer.wheel(point, { deltaX: dx * unit, deltaY: dy * unit, deltaMode: 0 });
      }
    },
    pinch: (factor, { x, y }, dx, dy) => {
      options.zoomAt?.(factor, x, y);
      options.panBy?.(dx, dy);
    },
  });
  let frame = 0;
  let screenKeyboard = false;
  const later = () => {
    if (frame === 0) {
      frame = requestAnimationFrame(() => {
        frame = 0;
        pointer.flush();
      });
    }
  };
  const remote = (x: number, y: number) => (live() ? toRemote(x, y) : undefined);
  const update = (at: Point, buttons: number) => {
    const point = remote(at.x, at.y);
    if (point !== undefined && pointer.update(point, buttons)) {
      later();
    }
  };
  const isLocked = () => document.pointerLockElement === stage;

  const release = () => {
    touch.cancel();
    keyboard.releaseAll();
    pointer.reset();
  };

  // Mouse and pen; fingers.

  const point = (event: PointerEvent) => {
    if (event.pointerType === "touch") {
      const finger = { id: event.pointerId, x: event.clientX, y: event.clientY };
      switch (event.type) {
        case "pointerdown":
          return touch.down(finger);
        case "pointerup":
          return touch.up(finger);
        case "pointercancel":
          return touch.cancel();
        default:
          return touch.move(finger);
      }
    }
    if (!event.isPrimary) {
      return;
    }
    const buttons = event.type === "pointercancel" ? 0 : event.buttons;
    if (!isLocked()) {
      update({ x: event.clientX, y: event.clientY }, buttons);
    } else if (live()) {
      // Movements of a locked pointer are pixels of the session's screen, however large it is drawn.
      if (pointer.moveBy(event.movementX, event.movementY, buttons)) {
        later();
      }
    }
  };
  // Raw updates come before the frame that pointermove waits for; not every browser and context has them. The
  // coalesced moves of one frame are of no use to the session: only the latest place counts.
  const move = "onpointerrawupdate" in window ? "pointerrawupdate" : "pointermove";
  stage.addEventListener(
    move as "pointermove",
    (event) => {
      if (!isLocked()) {
        point(event);
      }
    },
    { signal },
  );
  stage.addEventListener(
    "pointermove",
    (event) => {
      if (move === "pointermove" ? isLocked() : true) {
        point(event); // of a locked pointer, every movement counts once
      }
    },
    { signal },
  );
  stage.addEventListener(
    "pointerdown",
    (event) => {
      if (event.pointerType !== "mouse") {
        event.preventDefault(); // a mouse has its mouseup, which would leave the page, prevented below
      }
      if (event.isPrimary && !isLocked()) {
        stage.setPointerCapture(event.pointerId);
      }
      if (event.pointerType !== "touch" || screenKeyboard) {
        // Input methods put their window where the field is.
        field.style.left = `${event.clientX}px`;
        field.style.top = `${event.clientY}px`;
        text.reset();
        field.focus({ preventScroll: true });
      }
      point(event);
      if (event.pointerType === "mouse" && options.cursorHidden()) {
        lockPointer(true); // an application that hides the pointer and is clicked takes the movements
      }
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
      if (event.ctrlKey && !keyboard.isDown("ControlLeft", "ControlRight")) {
        // Browsers tell of a touchpad's pinch in this way.
        const factor = Math.exp(-event.deltaY / 100);
        options.zoomAt?.(factor, event.clientX, event.clientY);
        return;
      }
      const at = remote(event.clientX, event.clientY);
      if (at !== undefined) {
        pointer.wheel(at, event as WheelEvent & { wheelDeltaX?: number; wheelDeltaY?: number });
      }
    },
    { signal, passive: false },
  );

  function lockPointer(locked: boolean): void {
    if (!locked) {
      document.exitPointerLock?.();
    } else if (!isLocked()) {
      // Without a gesture of the user's, or in a browser without it, the pointer stays free.
      void Promise.resolve(stage.requestPointerLock?.()).catch(() => {});
    }
  }
  document.addEventListener("pointerlockchange", () => pointer.reset(), { signal });

  // Keys and text.

  const keyDown = (event: KeyboardEvent) => {
    const outcome = keyboard.keyDown(event);
    if (outcome !== "browser") {
      event.preventDefault();
      text.reset();
    }
    if (outcome === "leave") {
      pointer.reset();
      lockPointer(false);
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
  const composing = (is: boolean) => field.classList.toggle("composing", is);
  field.addEventListener("compositionstart", () => composing(true), { signal });
  field.addEventListener(
    "compositionend",
    () => {
      composing(false);
      text.sync();
    },
    { signal },
  );
  field.addEventListener(
    "input",
    (event) => {
      if (!(event instanceof InputEvent && event.isComposing)) {
        text.sync();
      }
    },
    { signal },
  );
  field.addEventListener("blur", release, { signal });
  window.addEventListener("blur", release, { signal });
  signal.addEventListener("abort", () => {
    cancelAnimationFrame(frame);
    touch.cancel();
    lockPointer(false);
  });
  const began = followLayout(send, signal);

  return {
    settings: keyboard.settings,
    showKeyboard: (shown) => {
      screenKeyboard = shown;
      text.keeps = shown;
      field.inputMode = shown ? "text" : "";
      if (shown) {
        field.focus({ preventScroll: true });
      } else {
        field.blur();
      }
    },
    lockPointer,
    cursorChanged: () => {
      if (isLocked() && !options.cursorHidden()) {
        lockPointer(false);
      }
    },
    began,
  };
}
