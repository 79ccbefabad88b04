import { texts } from "../texts.ts";
import type { Viewer } from "../viewer.ts";
import type { Config } from "./config.ts";
import { element, icon } from "./dom.ts";
import { QualityPanel } from "./quality.ts";
import { listenForShortcuts } from "./shortcuts.ts";

const icons = {
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  leaveFull: "M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5",
  keyboard: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
  minus: "M5 12h14",
  plus: "M12 5v14M5 12h14",
  second: "M3 5h8v9H3zM13 5h8v9h-8zM5 19h4M15 19h4",
  quality: "M5 20v-7M12 20V4M19 20v-10",
  end: "M12 3v9M6.3 6.8a8 8 0 1 0 11.4 0",
} as const;

/** Pan by keyboard, in CSS pixels. */
const panStep = 80;

/** The toolbar over the session: full screen, zoom, quality, end. Unobtrusive until pointed at or focused. */
export class Toolbar {
  readonly element: HTMLElement;
  readonly #viewer: Viewer;
  readonly #tell: (text: string) => void;
  readonly #quality: QualityPanel;
  readonly #full: HTMLButtonElement;
  readonly #zoom: HTMLButtonElement;
  readonly #zoomOut: HTMLButtonElement;
  readonly #zoomIn: HTMLButtonElement;
  readonly #second: HTMLButtonElement;
  readonly #qualityButton: HTMLButtonElement;
  readonly #abort = new AbortController();
  #session = "";
  #joined = 0;
  #endpoint = "";

  /** tell shows the user something to read. */
  constructor(viewer: Viewer, config: Promise<Config>, tell: (text: string) => void) {
    this.#viewer = viewer;
    this.#tell = tell;
    const { signal } = this.#abort;
    this.#full = button(texts.fullScreen, icons.full, () => this.#toggleFullScreen());
    this.#zoomOut = button(texts.zoomOut, icons.minus, () => viewer.zoomStep(-1), true);
    this.#zoomIn = button(texts.zoomIn, icons.plus, () => viewer.zoomStep(1), true);
    this.#zoom = element("button", { type: "button" });
    this.#zoom.addEventListener("click", () => {
      viewer.zoom = viewer.zoom === "fit" ? 100 : "fit";
    });
    this.#second = button(texts.second, icons.second, () => this.#toggleSecond());
    this.#second.hidden = true;
    this.#qualityButton = button(texts.quality.title, icons.quality, () => this.#toggleQuality());
    this.#qualityButton.setAttribute("aria-expanded", "false");
    this.#qualityButton.setAttribute("aria-controls", "quality");
    const end = button(texts.endSession, icons.end, () => dialog.showModal());
    end.classList.add("danger");
    this.#quality = new QualityPanel(
      viewer,
      () => ({
        session: this.#session,
        endpoint: this.#endpoint,
        host: viewer.host,
        joined: this.#joined,
        browser: navigator.userAgent,
      }),
      () => {
        this.#qualityButton.setAttribute("aria-expanded", "false");
        this.#qualityButton.focus();
      },
    );
    const dialog = this.#endDialog();
    const bar = element(
      "div",
      { class: "bar", role: "toolbar", "aria-label": texts.toolbar, title: texts.leaveHint },
      this.#full,
      element(
        "div",
        { class: "group", role: "group", "aria-label": texts.zoom },
        this.#zoomOut,
        this.#zoom,
        this.#zoomIn,
      ),
      this.#second,
      this.#qualityButton,
      end,
    );
    // Where there are fingers there may be no keys; elsewhere the button would do nothing.
    if (matchMedia("(any-pointer: coarse)").matches) {
      this.#qualityButton.before(this.#keyboardButton());
    }
    const grip = element("div", { class: "grip", "aria-hidden": "true" });
    this.element = element("div", { class: "toolbar" }, grip, bar, this.#quality.element, dialog);
    bar.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("fullscreenchange", () => this.#fullScreenChanged(), { signal });
    viewer.on("welcome", ({ sessionId }) => {
      this.#session = sessionId;
      this.#joined ||= Date.now();
      this.#second.hidden = !viewer.takesSecond;
    });
    viewer.on("second", (shown) => {
      this.#second.replaceChildren(
        icon(icons.second),
        element("span", {}, shown ? texts.closeSecond : texts.second),
      );
    });
    viewer.on("zoom", () => this.#drawZoom());
    viewer.on("leaveKeyboard", () => this.#full.focus());
    void config.then(({ endpointId, region }) => {
      this.#endpoint = [endpointId, region].filter(Boolean).join(", ");
    });
    this.#drawZoom();
    listenForShortcuts(
      window,
      {
        KeyF: () => void this.#toggleFullScreen(),
        KeyM: () => this.#toggleSecond(),
        KeyS: () => this.#toggleQuality(),
        KeyL: () => viewer.lockPointer(true),
        KeyK: () => {
          viewer.keysByPlace = !viewer.keysByPlace;
          viewer.tell(viewer.keysByPlace ? texts.keysByPlace : texts.keysByCharacter);
        },
        KeyC: () => {
          viewer.commandIsControl = !viewer.commandIsControl;
          viewer.tell(viewer.commandIsControl ? texts.commandIsControl : texts.commandIsSuper);
        },
        Equal: () => viewer.zoomStep(1),
        NumpadAdd: () => viewer.zoomStep(1),
        Minus: () => viewer.zoomStep(-1),
        NumpadSubtract: () => viewer.zoomStep(-1),
        Digit0: () => {
          viewer.zoom = "fit";
        },
        Digit1: () => {
          viewer.zoom = 100;
        },
        ArrowLeft: () => viewer.panBy(panStep, 0),
        ArrowRight: () => viewer.panBy(-panStep, 0),
        ArrowUp: () => viewer.panBy(0, panStep),
        ArrowDown: () => viewer.panBy(0, -panStep),
      },
      signal,
    );
  }

  close(): void {
    this.#quality.toggle(false);
    this.#abort.abort();
    this.element.remove();
  }

  /** Opens and closes the screen keyboard of a phone. */
  #keyboardButton(): HTMLButtonElement {
    const toggle = button(texts.screenKeyboard, icons.keyboard, () => {
      const shown = toggle.getAttribute("aria-pressed") !== "true";
      toggle.setAttribute("aria-pressed", String(shown));
      this.#viewer.showKeyboard(shown);
    });
    toggle.setAttribute("aria-pressed", "false");
    return toggle;
  }

  #keyDown(event: KeyboardEvent): void {
    const buttons = [
      ...this.element.querySelectorAll<HTMLButtonElement>(".bar button:not([hidden])"),
    ];
    const at = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (event.key === "Escape") {
      this.#viewer.focus();
    } else if (event.key === "ArrowRight") {
      buttons[(at + 1) % buttons.length]?.focus();
    } else if (event.key === "ArrowLeft") {
      buttons[(at + buttons.length - 1) % buttons.length]?.focus();
    } else {
      return;
    }
    event.preventDefault();
  }

  #endDialog(): HTMLDialogElement {
    const stay = element("button", { type: "button" }, texts.endCancel);
    const end = element("button", { type: "button", class: "danger" }, texts.endConfirm);
    const dialog = element(
      "dialog",
      { "aria-labelledby": "end-title", "aria-describedby": "end-body" },
      element("h2", { id: "end-title" }, texts.endTitle),
      element("p", { id: "end-body" }, texts.endBody),
      element("div", { class: "actions" }, stay, end),
    );
    stay.addEventListener("click", () => dialog.close());
    end.addEventListener("click", () => {
      dialog.close();
      this.#viewer.endSession();
    });
    dialog.addEventListener("close", () => this.#viewer.focus());
    return dialog;
  }

  async #toggleFullScreen(): Promise<void> {
    if (document.fullscreenElement !== null) {
      await document.exitFullscreen();
    } else {
      await document.documentElement.requestFullscreen({ navigationUI: "hide" }).catch(() => {}); // the browser or an embedding page forbids it
    }
    this.#viewer.focus();
  }

  #fullScreenChanged(): void {
    const full = document.fullscreenElement !== null;
    const label = full ? texts.leaveFullScreen : texts.fullScreen;
    this.#full.replaceChildren(
      icon(full ? icons.leaveFull : icons.full),
      element("span", {}, label),
    );
    // Escape and the like go to the session while it has the whole screen, where the browser grants that.
    const keyboard = (navigator as { keyboard?: KeyboardLock }).keyboard;
    if (full) {
      void keyboard?.lock?.().catch(() => {});
    } else {
      keyboard?.unlock?.();
    }
  }

  #drawZoom(): void {
    const { zoom, zoomPercent } = this.#viewer;
    const fits = zoom === "fit";
    this.#zoom.textContent = fits ? texts.zoomFit : `${zoomPercent} %`;
    this.#zoom.setAttribute(
      "aria-label",
      fits ? texts.zoomFits(zoomPercent) : texts.zoomedTo(zoomPercent),
    );
  }

  #toggleSecond(): void {
    if (this.#viewer.takesSecond && !this.#viewer.toggleSecond()) {
      this.#tell(texts.secondBlocked);
    }
    this.#viewer.focus();
  }

  #toggleQuality(): void {
    this.#quality.toggle();
    this.#qualityButton.setAttribute("aria-expanded", String(this.#quality.open));
  }
}

interface KeyboardLock {
  lock?: () => Promise<void>;
  unlock?: () => void;
}

/** A button with an icon; a bare one shows that alone. */
function button(
  label: string,
  path: string,
  action: () => unknown,
  bare = false,
): HTMLButtonElement {
  const node = bare
    ? element("button", { type: "button", "aria-label": label }, icon(path))
    : element("button", { type: "button" }, icon(path), element("span", {}, label));
  node.addEventListener("click", () => void action());
  return node;
}
