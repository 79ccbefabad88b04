import type { CDPSession } from "playwright-core";
import type { LayoutKey, Level } from "./tools.ts";

/** Bits of Input.dispatchKeyEvent's modifiers. */
export const mod = { alt: 1, ctrl: 2, meta: 4, shift: 8 } as const;

/** How a browser tells of AltGr: by the key alone, or as Control and Alt together. */
export type AltGrStyle = "linux" | "windows";

const rows: [prefix: string, codes: string][] = [
  [
    "AE",
    "Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal IntlYen",
  ],
  ["AD", "KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight"],
  ["AC", "KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote"],
  ["AB", "KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash IntlRo"],
];

/** KeyboardEvent.code of XKB's names of the places, both as standards number the rows of a keyboard. */
export const codeOf = new Map<string, string>([
  ["TLDE", "Backquote"],
  ["BKSL", "Backslash"],
  ["LSGT", "IntlBackslash"],
  ["SPCE", "Space"],
  ...rows.flatMap(([prefix, codes]) =>
    codes
      .split(" ")
      .map((code, i): [string, string] => [`${prefix}${String(i + 1).padStart(2, "0")}`, code]),
  ),
]);

/** A keyboard in front of a Chromium page: sends through CDP what the browser makes of each key of a layout. */
export class BrowserKeyboard {
  readonly #devtools: CDPSession;
  readonly #sent: Promise<unknown>[] = [];
  strokes = 0;

  constructor(devtools: CDPSession) {
    this.#devtools = devtools;
  }

  /** Nothing is waited for: commands are executed in order. */
  down(code: string, key: string, modifiers = 0, more: object = {}): void {
    this.strokes++;
    this.#send({ type: "rawKeyDown", code, key, modifiers, ...more });
  }

  up(code: string, key: string, modifiers = 0, more: object = {}): void {
    this.#send({ type: "keyUp", code, key, modifiers, ...more });
  }

  tap(code: string, key: string, modifiers = 0, more: object = {}): void {
    this.down(code, key, modifiers, more);
    this.up(code, key, modifiers, more);
  }

  #send(event: object): void {
    this.#sent.push(this.#devtools.send("Input.dispatchKeyEvent", event as never));
  }

  /** Waits until the browser has dispatched everything. */
  async flush(): Promise<void> {
    await Promise.all(this.#sent.splice(0));
  }

  /** Runs tap with the keys of a level held: 1 is Shift, 2 is AltGr, 3 is both. */
  #level(level: number, style: AltGrStyle, tap: (modifiers: number) => void): void {
    const graph = (level & 2) !== 0;
    const windows = style === "windows";
    const shift = level & 1 ? mod.shift : 0;
    const asReported = graph && windows ? mod.ctrl | mod.alt : 0;
    if (graph && windows) {
      this.down("ControlLeft", "Control", mod.ctrl, { location: 1 });
    }
    if (graph) {
      this.down("AltRight", "AltGraph", asReported, { location: 2 });
    }
    if (shift) {
      this.down("ShiftLeft", "Shift", asReported | shift, { location: 1 });
    }
    tap(asReported | shift);
    if (shift) {
      this.up("ShiftLeft", "Shift", asReported, { location: 1 });
    }
    if (graph && windows) {
      this.up("ControlLeft", "Control", mod.alt, { location: 1 });
    }
    if (graph) {
      this.up("AltRight", "AltGraph", 0, { location: 2 });
    }
  }

  /** Types every key of a layout at every level, and returns the text that a local program would have got. */
  typeAll(layout: LayoutKey[], style: AltGrStyle): string {
    let text = "";
    for (const { key, levels } of layout) {
      const code = codeOf.get(key);
      if (code === undefined) {
        continue; // a place that no keyboard for browsers has
      }
      levels.forEach((level, i) => {
        text += this.#typeLevel(code, i, level, style);
      });
    }
    return text;
  }

  #typeLevel(code: string, i: number, level: Level, style: AltGrStyle): string {
    let text = "";
    if (level.sym.startsWith("dead_")) {
      for (const next of level.dead) {
        this.#level(i, style, (modifiers) => this.tap(code, "Dead", modifiers));
        const nextCode = codeOf.get(next.key) ?? "";
        this.#level(next.shift ? 1 : 0, style, (modifiers) =>
          this.tap(nextCode, next.text, modifiers),
        );
        text += next.text;
      }
    } else if (level.text !== "" && level.text >= " ") {
      this.#level(i, style, (modifiers) => {
        // No browser has a name for a key of several characters; it types them into the page.
        const several = [...level.text].length > 1;
        this.down(
          code,
          level.text,
          modifiers,
          several ? { type: "keyDown", text: level.text } : {},
        );
        this.up(code, level.text, modifiers);
      });
      text += level.text;
    }
    return text;
  }
}
