import { expect, it } from "vitest";
import type { InputWithoutSeq } from "../session/session.ts";
import { Keyboard, type KeyLike } from "./keyboard.ts";

function keyboard() {
  const sent: InputWithoutSeq[] = [];
  return { sent, keys: new Keyboard((input) => sent.push(input)) };
}

function event(
  code: string,
  key: string,
  more: Partial<KeyLike> & { states?: string[] } = {},
): KeyLike {
  const { states = [], ...rest } = more;
  return {
    code,
    key,
    repeat: false,
    shiftKey: false,
    ctrlKey: false,
    altKey: false,
    metaKey: false,
    isComposing: false,
    keyCode: 0,
    getModifierState: (name) => states.includes(name),
    ...rest,
  };
}

it("sends a key down and up with its code, key and modifiers", () => {
  const { keys, sent } = keyboard();
  expect(keys.keyDown(event("KeyA", "A", { shiftKey: true, states: ["CapsLock"] }))).toBe(
    "session",
  );
  keys.keyUp(event("KeyA", "A", { shiftKey: true, states: ["NumLock"] }));
  expect(sent).toEqual([
    { kind: "key", down: true, flags: 2 | 64, code: "KeyA", key: "A" },
    { kind: "key", down: false, flags: 2 | 128, code: "KeyA", key: "A" },
  ]);
});

it("names every modifier", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(
    event("KeyB", "b", { ctrlKey: true, altKey: true, metaKey: true, states: ["AltGraph"] }),
  );
  expect(sent).toMatchObject([{ flags: 4 | 8 | 16 | 32 }]);
});

it("marks repeats, but not of a key whose first press was not seen", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(event("KeyA", "a", { repeat: true }));
  keys.keyDown(event("KeyA", "a", { repeat: true }));
  expect(sent).toMatchObject([{ flags: 0 }, { flags: 1 }]);
});

it("lets a key go with the key it was pressed with", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(event("Digit2", "2"));
  keys.keyUp(event("Digit2", '"', { shiftKey: true }));
  expect(sent).toMatchObject([{ key: "2" }, { key: "2", down: false }]);
});

it("swallows the up of a key whose down went elsewhere", () => {
  const { keys, sent } = keyboard();
  expect(keys.keyUp(event("Tab", "Tab"))).toBe("session");
  expect(sent).toEqual([]);
});

it("leaves composition, dead keys and input methods to the browser", () => {
  const { keys, sent } = keyboard();
  for (const e of [
    event("KeyA", "a", { isComposing: true }),
    event("KeyA", "Process"),
    event("KeyA", "a", { keyCode: 229 }),
    event("Equal", "Dead"),
    event("", "Unidentified"),
  ]) {
    expect(keys.keyDown(e)).toBe("browser");
    expect(keys.keyUp(e)).toBe("browser");
  }
  expect(sent).toEqual([]);
  keys.text("é");
  expect(sent).toEqual([{ kind: "text", text: "é" }]);
});

it("splits long text between characters", () => {
  const { keys, sent } = keyboard();
  const text = `x${"😀".repeat(10_000)}`;
  keys.text(text);
  const parts = sent.map((m) => (m.kind === "text" ? m.text : ""));
  expect(parts.join("")).toBe(text);
  for (const part of parts) {
    expect(Buffer.from(part).toString()).toBe(part); // no half character
    expect(Buffer.byteLength(part)).toBeLessThan(65_000);
  }
  keys.text("");
  expect(sent).toHaveLength(parts.length);
});

it("releases all and forgets what was down", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(event("KeyA", "a"));
  keys.releaseAll();
  keys.keyUp(event("KeyA", "a"));
  expect(sent.map(({ kind }) => kind)).toEqual(["key", "release-all"]);
});

it("gives the keyboard back on Ctrl+Alt+Shift+Q and releases all", () => {
  const { keys, sent } = keyboard();
  const q = event("KeyQ", "Q", { ctrlKey: true, altKey: true, shiftKey: true });
  expect(keys.keyDown(q)).toBe("leave");
  expect(sent).toEqual([{ kind: "release-all" }]);
});

it("releases what Meta kept from being heard", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(event("MetaLeft", "Meta", { metaKey: true }));
  keys.keyDown(event("KeyC", "c", { metaKey: true }));
  keys.keyUp(event("MetaLeft", "Meta"));
  expect(sent.slice(2)).toMatchObject([
    { code: "MetaLeft", down: false },
    { code: "KeyC", down: false },
  ]);
});

it("takes AltGr of Windows for what it is, and not for the way out", () => {
  let now = 0;
  const sent: InputWithoutSeq[] = [];
  const keys = new Keyboard(
    (input) => sent.push(input),
    {},
    () => now,
  );
  const both = { ctrlKey: true, altKey: true };
  keys.keyDown(event("ControlLeft", "Control", { ctrlKey: true }));
  now += 1;
  keys.keyDown(event("AltRight", "AltGraph", both));
  expect(sent.at(-2)).toMatchObject({ code: "ControlLeft", down: false });
  keys.keyDown(event("KeyQ", "@", both));
  expect(sent.at(-1)).toMatchObject({ key: "@", flags: 4 | 8 | 32 });
  expect(keys.keyDown(event("KeyQ", "Ω", { ...both, shiftKey: true }))).toBe("session");
  const before = sent.length;
  keys.keyUp(event("ControlLeft", "Control", { altKey: true }));
  expect(sent).toHaveLength(before);
  keys.keyUp(event("AltRight", "AltGraph"));
  keys.keyDown(event("KeyA", "a"));
  expect(sent.at(-1)).toMatchObject({ key: "a", flags: 0 });
});

it("makes ⌘ Control and Option AltGr on a Mac", () => {
  const sent: InputWithoutSeq[] = [];
  const keys = new Keyboard((input) => sent.push(input), { mac: true, commandIsControl: true });
  keys.keyDown(event("MetaLeft", "Meta", { metaKey: true }));
  keys.keyDown(event("KeyC", "c", { metaKey: true }));
  keys.keyUp(event("MetaLeft", "Meta"));
  keys.keyDown(event("KeyL", "@", { altKey: true }));
  keys.keyDown(event("F4", "F4", { altKey: true }));
  expect(sent).toMatchObject([
    { key: "Control", down: true, flags: 4 },
    { key: "c", down: true, flags: 4 },
    { key: "Control", down: false },
    { key: "c", down: false },
    { key: "@", flags: 8 | 32 },
    { key: "F4", flags: 8 },
  ]);
});

it("sends places alone when asked to, dead keys too", () => {
  const { keys, sent } = keyboard();
  keys.settings.byPlace = true;
  expect(keys.keyDown(event("Equal", "Dead"))).toBe("session");
  keys.keyDown(event("KeyE", "é"));
  expect(sent).toMatchObject([
    { code: "Equal", key: "" },
    { code: "KeyE", key: "" },
  ]);
});

it("joins halves of characters that come as keys, and drops lone ones", () => {
  const { keys, sent } = keyboard();
  keys.keyDown(event("", "\ud83d"));
  keys.keyDown(event("", "\ude00"));
  keys.keyDown(event("", "\ude00"));
  keys.text("a\ud83db\ude00");
  expect(sent).toEqual([
    { kind: "text", text: "😀" },
    { kind: "text", text: "ab" },
  ]);
});

it("refuses ten million characters at once", () => {
  const { keys, sent } = keyboard();
  expect(keys.text("x".repeat(10_000_000))).toBe(false);
  expect(sent).toEqual([]);
});
