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

/** Turns keyboard and composition events into input messages; knows which keys are down. No DOM. */
export class Keyboard {
  readonly #send: SendInput;
  readonly #down = new Map<string, { key: string; withMeta: boolean }>();

  constructor(send: SendInput) {
    this.#send = send;
  }

  keyDown(event: KeyLike): KeyOutcome {
    if (isLeave(event)) {
      this.releaseAll();
      return "leave";
    }
    if (belongsToComposition(event)) {
      return "browser";
    }
    const name = event.code || event.key;
    const held = this.#down.get(name);
    this.#down.set(name, { key: event.key, withMeta: event.metaKey && !isMeta(event) });
    this.#key(true, event, event.key, event.repeat && held !== undefined);
    return "session";
  }

  keyUp(event: KeyLike): KeyOutcome {
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
          this.#send({ kind: "key", down: false, flags: flagsOf(event), code, key });
        }
      }
    }
    return "session";
  }

  /** Text of an input method, a dead key or a screen keyboard. */
  text(text: string): void {
    // A message has at most 64 KiB; text of this length comes only from a paste.
    for (let at = 0; at < text.length; ) {
      let end = Math.min(at + 8192, text.length);
      if (end < text.length && isHighSurrogate(text.charCodeAt(end - 1))) {
        end--;
      }
      this.#send({ kind: "text", text: text.slice(at, end) });
      at = end;
    }
  }

  releaseAll(): void {
    this.#down.clear();
    this.#send({ kind: "release-all" });
  }

  #key(down: boolean, event: KeyLike, key: string, repeat: boolean): void {
    this.#send({
      kind: "key",
      down,
      flags: flagsOf(event) | (repeat ? keyFlag.repeat : 0),
      code: event.code,
      key,
    });
  }
}

/** Ctrl+Alt+Shift+Q gives the keyboard back to the page. */
function isLeave(event: KeyLike): boolean {
  return event.code === "KeyQ" && event.ctrlKey && event.altKey && event.shiftKey;
}

/** Keys that an input method works on, and dead keys: their result arrives as text or as a later key. */
function belongsToComposition(event: KeyLike): boolean {
  return (
    event.isComposing ||
    event.keyCode === 229 ||
    event.key === "Dead" ||
    event.key === "Process" ||
    (event.key === "Unidentified" && event.code === "")
  );
}

function isMeta(event: KeyLike): boolean {
  return event.code === "MetaLeft" || event.code === "MetaRight" || event.key === "Meta";
}

function isHighSurrogate(unit: number): boolean {
  return unit >= 0xd800 && unit < 0xdc00;
}

function flagsOf(event: KeyLike): number {
  return (
    (event.shiftKey ? keyFlag.shift : 0) |
    (event.ctrlKey ? keyFlag.ctrl : 0) |
    (event.altKey ? keyFlag.alt : 0) |
    (event.metaKey ? keyFlag.meta : 0) |
    (event.getModifierState("AltGraph") ? keyFlag.altGraph : 0) |
    (event.getModifierState("CapsLock") ? keyFlag.capsLock : 0) |
    (event.getModifierState("NumLock") ? keyFlag.numLock : 0)
  );
}
