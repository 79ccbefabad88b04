import { texts } from "../texts.ts";
import type { Viewer } from "../viewer.ts";
import type { Config } from "./config.ts";
import { element, icon } from "./dom.ts";

const icons = {
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  leaveFull: "M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5",
  stats: "M5 20v-7M12 20V4M19 20v-10",
  end: "M12 3v9M6.3 6.8a8 8 0 1 0 11.4 0",
} as const;

/** The toolbar over the session: full screen, statistics, end. Unobtrusive until pointed at or focused. */
export class Toolbar {
  readonly element: HTMLElement;
  readonly #viewer: Viewer;
  readonly #stats: HTMLElement;
  readonly #full: HTMLButtonElement;
  readonly #statsButton: HTMLButtonElement;
  readonly #rows = new Map<string, HTMLElement>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #session = "";

  constructor(viewer: Viewer, config: Promise<Config>) {
    this.#viewer = viewer;
    this.#full = button(texts.fullScreen, icons.full, () => this.#toggleFullScreen());
    this.#statsButton = button(texts.statistics, icons.stats, () => this.#toggleStats());
    this.#statsButton.setAttribute("aria-expanded", "false");
    this.#statsButton.setAttribute("aria-controls", "stats");
    const end = button(texts.endSession, icons.end, () => dialog.showModal());
    end.classList.add("danger");
    this.#stats = element("section", {
      id: "stats",
      class: "stats",
      "aria-label": texts.stats.title,
      hidden: true,
    });
    const dialog = this.#endDialog();
    const bar = element(
      "div",
      { class: "bar", role: "toolbar", "aria-label": texts.toolbar, title: texts.leaveHint },
      this.#full,
      this.#statsButton,
      end,
    );
    const grip = element("div", { class: "grip", "aria-hidden": "true" });
    this.element = element("div", { class: "toolbar" }, grip, bar, this.#stats, dialog);
    bar.addEventListener("keydown", (event) => this.#keyDown(event));
    document.addEventListener("fullscreenchange", () => this.#fullScreenChanged());
    viewer.on("welcome", ({ sessionId }) => {
      this.#session = sessionId;
    });
    viewer.on("leaveKeyboard", () => this.#full.focus());
    void config.then(({ endpointId, region }) => {
      this.#endpoint = [endpointId, region].filter(Boolean).join(", ");
    });
  }

  #endpoint = "";

  close(): void {
    clearInterval(this.#timer);
    this.element.remove();
  }

  #keyDown(event: KeyboardEvent): void {
    const buttons = [...this.element.querySelectorAll<HTMLButtonElement>(".bar button")];
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
      await document.documentElement.requestFullscreen({ navigationUI: "hide" });
      // Escape and the like go to the session while it has the whole screen, where the browser grants that.
      const keyboard = (navigator as { keyboard?: { lock?: () => Promise<void> } }).keyboard;
      await keyboard?.lock?.().catch(() => {});
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
  }

  #toggleStats(): void {
    const show = this.#stats.hidden;
    this.#stats.hidden = !show;
    this.#statsButton.setAttribute("aria-expanded", String(show));
    clearInterval(this.#timer);
    if (show) {
      this.#drawStats();
      this.#timer = setInterval(() => this.#drawStats(), 500);
    }
  }

  #drawStats(): void {
    const stats = this.#viewer.stats();
    const ms = (value: number) => `${value.toFixed(1)} ms`;
    this.#row(texts.stats.rtt, stats.rttMs > 0 ? ms(stats.rttMs) : "–");
    this.#row(texts.stats.frameAge, ms(stats.frameAgeMs));
    this.#row(texts.stats.decode, ms(stats.decodeMs));
    this.#row(texts.stats.updates, stats.updates.toLocaleString("en"));
    this.#row(texts.stats.screen, `${stats.width} × ${stats.height}`);
    this.#row(texts.stats.control, size(stats.bytes.control));
    this.#row(texts.stats.display, size(stats.bytes.display));
    this.#row(texts.stats.session, this.#session || "–");
    this.#row(texts.stats.endpoint, this.#endpoint || location.host);
  }

  #row(label: string, value: string): void {
    let cell = this.#rows.get(label);
    if (cell === undefined) {
      cell = element("span", { class: "value" });
      this.#rows.set(label, cell);
      this.#stats.append(element("div", { class: "row" }, element("span", {}, label), cell));
    }
    if (cell.textContent !== value) {
      cell.textContent = value;
    }
  }
}

function button(label: string, path: string, action: () => unknown): HTMLButtonElement {
  const node = element("button", { type: "button" }, icon(path), element("span", {}, label));
  node.addEventListener("click", () => void action());
  return node;
}

function size(bytes: number): string {
  if (bytes < 1024) {
    return `${bytes} B`;
  }
  if (bytes < 1024 * 1024) {
    return `${(bytes / 1024).toFixed(1)} KiB`;
  }
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
