import { keyFlag } from "@penstock/protocol";
import type { InputWithoutSeq } from "../session/session.ts";

/** The parts of KeyboardEvent that decide what the session gets. */
export interface KeyLike {
  code: string;
  key: string;
  repeat: boolean;
  shiftKey: boolean;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
  isComposing: boolean;
  keyCode: number;
  getModifierState(name: string): boolean;
}

export type SendInput = (input: InputWithoutSeq) => void;

/** What the page does with a key event: leave it to the browser, keep it from it, or give the focus back. */
export type KeyOutcome = "browser" | "session" | "leave";

export interface KeyboardSettings {
  /** The user's machine is a Mac: Option chooses characters, and keys that go up while ⌘ is down are not told. */
  mac: boolean;
  /** ⌘ is the session's Control, so that ⌘C copies. */
  commandIsControl: boolean;
  /** Keys go by their place alone; the session's keyboard, its dead keys and input methods decide what they make. */
  byPlace: boolean;
}

/** Greatest text that is typed into the session in one go, in UTF-16 units; it takes the session a minute at worst. */
export const maxText = 100_000;

/** Windows tells of Control just before AltGr, which nobody pressed. */
const falseControlMillis = 30;

interface Held {
  key: string;
  withMeta: boolean;
  at: number;
}

/** Turns keyboard and composition events into input messages; knows which keys are down. No DOM. */
export class Keyboard {
  readonly settings: KeyboardSettings;
  readonly #send: SendInput;
  readonly #now: () => number;
  readonly #down = new Map<string, Held>();
  #graph = false;
  #highSurrogate = "";

  constructor(
    send: SendInput,
    settings: Partial<KeyboardSettings> = {},
    now: () => number = () => performance.now(),
  ) {
    this.#send = send;
    this.#now = now;
    this.settings = { mac: false, commandIsControl: false, byPlace: false, ...settings };
  }

  /** Whether a key is down in the session. */
  isDown(...codes: string[]): boolean {
    return codes.some((code) => this.#down.has(code));
  }

  keyDown(event: KeyLike): KeyOutcome {
    if (isLeave(event) && !this.#graph && !event.getModifierState("AltGraph")) {
      this.releaseAll();
      return "leave";
    }
    if (belongsToComposition(event) && !(this.settings.byPlace && isDead(event))) {
      return "browser";
    }
    const surrogate = this.#joinSurrogates(event.key);
    if (surrogate !== undefined) {
      this.text(surrogate);
      return "session";
    }
    if (event.key === "AltGraph") {
      this.#graph = true;
      this.#dropFalseControl(event);
    }
    const name = event.code || event.key;
    const held = this.#down.get(name);
    const key = this.#keyOf(event);
    this.#down.set(name, { key, withMeta: event.metaKey && !isMeta(event), at: this.#now() });
    this.#key(true, event, key, event.repeat && held !== undefined);
    return "session";
  }

  keyUp(event: KeyLike): KeyOutcome {
    if (event.key === "AltGraph" || (this.#graph && event.code === "AltRight")) {
      this.#graph = false;
    }
    const name = event.code || event.key;
    const held = this.#down.get(name);
    if (held === undefined) {
      return belongsToComposition(event) ? "browser" : "session"; // its down never reached the session
    }
    this.#down.delete(name);
    this.#key(false, event, held.key, false);
    if (isMeta(event)) {
      // macOS tells nothing of keys that go up while Meta is held.
      for (const [code, { key, withMeta }] of this.#down) {
        if (withMeta) {
          this.#down.delete(code);
          this.#send({ kind: "key", down: false, flags: this.#flags(event, key), code, key });
        }
      }
    }
    return "session";
  }

  /**
   * Text of an input method, a dead key or a screen keyboard. False when it is too long: then nothing is typed.
   * Halves of characters are left out.
   */
  text(text: string): boolean {
    if (text.length > maxText) {
      return false;
    }
    const whole = text.replace(loneSurrogates, "");
    // A message has at most 64 KiB.
    for (let at = 0; at < whole.length; ) {
      let end = Math.min(at + 8192, whole.length);
      if (end < whole.length && isHighSurrogate(whole.charCodeAt(end - 1))) {
        end--;
      }
      this.#send({ kind: "text", text: whole.slice(at, end) });
      at = end;
    }
    return true;
  }

  /** Presses and lets go a key that has no event of its own, as Backspace on a phone. */
  tap(code: string): void {
    for (const down of [true, false]) {
      this.#send({ kind: "key", down, flags: 0, code, key: code });
    }
  }

  releaseAll(): void {
    this.#down.clear();
    this.#graph = false;
    this.#highSurrogate = "";
    this.#send({ kind: "release-all" });
  }

  #key(down: boolean, event: KeyLike, key: string, repeat: boolean): void {
    this.#send({
      kind: "key",
      down,
      flags: this.#flags(event, key) | (repeat ? keyFlag.repeat : 0),
      code: event.code,
      key,
    });
  }

  #keyOf(event: KeyLike): string {
    if (this.settings.byPlace && event.code !== "") {
      return "";
    }
    return this.settings.commandIsControl && isMeta(event) ? "Control" : event.key;
  }

  /** Some programs type characters beyond U+FFFF as two keys, half a character each. */
  #joinSurrogates(key: string): string | undefined {
    const unit = key.length === 1 ? key.charCodeAt(0) : 0;
    if (unit < 0xd800 || unit > 0xdfff) {
      this.#highSurrogate = "";
      return undefined;
    }
    const whole = this.#highSurrogate + key;
    this.#highSurrogate = isHighSurrogate(unit) ? key : "";
    return this.#highSurrogate === "" ? whole : "";
  }

  #dropFalseControl(event: KeyLike): void {
    const control = this.#down.get("ControlLeft");
    if (control !== undefined && this.#now() - control.at < falseControlMillis) {
      this.#down.delete("ControlLeft");
      this.#send({
        kind: "key",
        down: false,
        flags: this.#flags(event, control.key),
        code: "ControlLeft",
        key: control.key,
      });
    }
  }

  #flags(event: KeyLike, key: string): number {
    const { mac, commandIsControl } = this.settings;
    const meta = event.metaKey && !commandIsControl;
    const ctrl = event.ctrlKey || (event.metaKey && commandIsControl);
    // On a Mac, Option is what AltGr is elsewhere, unless the key makes no character.
    const option = mac && event.altKey && !event.ctrlKey && !event.metaKey && [...key].length === 1;
    const graph = option || this.#graph || event.getModifierState("AltGraph");
    return (
      (event.shiftKey ? keyFlag.shift : 0) |
      (ctrl ? keyFlag.ctrl : 0) |
      (event.altKey ? keyFlag.alt : 0) |
      (meta ? keyFlag.meta : 0) |
      (graph ? keyFlag.altGraph : 0) |
      (event.getModifierState("CapsLock") ? keyFlag.capsLock : 0) |
      (event.getModifierState("NumLock") ? keyFlag.numLock : 0)
    );
  }
}

const loneSurrogates = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

/** Ctrl+Alt+Shift+Q gives the keyboard back to the page, wherever the keyboard has its Q; AltGr is no Ctrl+Alt. */
function isLeave(event: KeyLike): boolean {
  const q = event.code === "KeyQ" || event.key.toUpperCase() === "Q";
  return q && event.ctrlKey && event.altKey && event.shiftKey;
}

/**
 * Keys that an input method works on, dead keys, and keys of several characters or none that a browser can name: their
 * result arrives as text or as a later key.
 */
function belongsToComposition(event: KeyLike): boolean {
  return (
    event.isComposing ||
    event.keyCode === 229 ||
    isDead(event) ||
    event.key === "Process" ||
    event.key === "Unidentified" ||
    event.key === ""
  );
}

function isDead({ key }: KeyLike): boolean {
  return key === "Dead" || key === "Compose";
}

function isMeta(event: KeyLike): boolean {
  return event.code === "MetaLeft" || event.code === "MetaRight" || event.key === "Meta";
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}
