// Input from Chromium to a real X client in a real session: exact text in exact order, and every state a key can be in.
import type { Browser, BrowserContext, CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { launchBrowser } from "./browser.ts";
import { FakeAgent } from "./fake_agent.ts";
import { Region, type SessionView } from "./region.ts";
import { type AltGrStyle, BrowserKeyboard, codeOf, mod } from "./x11/browser_keyboard.ts";
import { type LayoutKey, type Reader, X11Tools } from "./x11/tools.ts";

/** A key that the page heard of, and when. */
interface Heard {
  type: string;
  code: string;
  key: string;
  modifiers: string;
  at: number;
}

declare global {
  interface Window {
    heard?: Heard[];
  }
}

let browser: Browser;
let region: Region;
let context: BrowserContext;
let page: Page;
let devtools: CDPSession;
let keyboard: BrowserKeyboard;
let reader: Reader;
let session: SessionView;
const tools = new X11Tools();

beforeAll(async () => {
  region = new Region();
  [browser] = await Promise.all([launchBrowser(), region.start(), tools.build()]);
  context = await browser.newContext({ viewport: { width: 800, height: 600 } });
  page = await context.newPage();
  devtools = await context.newCDPSession(page);
  keyboard = new BrowserKeyboard(devtools);
  await page.addInitScript(() => {
    const heard: Heard[] = [];
    window.heard = heard;
    for (const type of ["keydown", "keyup"] as const) {
      window.addEventListener(
        type,
        ({ code, key, ctrlKey, altKey, shiftKey, timeStamp }) => {
          const modifiers = `${ctrlKey ? "C" : ""}${altKey ? "A" : ""}${shiftKey ? "S" : ""}`;
          heard.push({ type, code, key, modifiers, at: Math.round(timeStamp) });
        },
        { capture: true },
      );
    }
  });
  await page.goto(await region.streamingUrl("ann", "xterm"));
  await streaming(page);
  session = await region.sessionOf("ann");
  reader = await tools.read(session);
}, 90_000);
afterAll(async () => {
  reader?.stop();
  await browser?.close();
  await region?.stop();
  tools.remove();
}, 30_000);

const streaming = (p: Page) =>
  p.waitForFunction(() => window.penstock?.state === "streaming", undefined, { timeout: 40_000 });

/** Waits until the reader has typed as much as is expected, and a little more for what is too much. */
const typed = async (want: string) => {
  const length = [...want].length;
  await keyboard.flush();
  await reader
    .until(() => [...reader.text()].length >= length, `${length} characters`)
    .catch(() => {});
  await reader.settle();
  return reader.text();
};

/** What became of the keys: as the page heard of them, as the reader got them, and what the X server has them make. */
async function trace(want: string): Promise<string> {
  const got = reader.text();
  const [a, b] = [[...got], [...want]];
  const first = b.findIndex((c, i) => c !== a[i]);
  const heard = await page.evaluate(() => window.heard ?? []);
  const seen: string[] = [];
  let length = 0;
  for (const s of reader.seen) {
    if (Math.abs(length - first) < 4 && s.t !== "move") {
      seen.push(JSON.stringify(s));
    }
    length += s.t === "down" ? [...Buffer.from(s.text, "hex").toString("utf8")].length : 0;
  }
  const near = heard.findIndex(({ key }, i) => key === b[first] && i > first);
  const codes = new Set(seen.flatMap((line) => /"code":(\d+)/.exec(line)?.[1] ?? []));
  const keycodes = (await region.x(session, "xmodmap", "-pke").catch(String)).split("\n");
  return [
    `the page heard, with times in ms: ${JSON.stringify(heard.slice(Math.max(0, near - 12), near + 8))}`,
    `the reader got: ${seen.join(" ")}`,
    ...keycodes.filter((line) => codes.has(/keycode +(\d+)/.exec(line)?.[1] ?? "")),
  ].join("\n");
}

/** Every difference of two texts, for a message that helps. */
function wrong(got: string, want: string): string[] {
  const a = [...got];
  const b = [...want];
  const all: string[] = [];
  for (let i = 0; i < Math.max(a.length, b.length) && all.length < 10; i++) {
    if (a[i] !== b[i]) {
      all.push(`at ${i}: got ${JSON.stringify(a[i])}, want ${JSON.stringify(b[i])}`);
    }
  }
  return all;
}

beforeEach(async () => {
  reader.clear();
  await page.evaluate(() => {
    window.heard?.splice(0);
  });
});
afterEach(async () => {
  await keyboard.flush();
});

/** Layouts of the matrix: the browser knows the first, so the session follows; of the others it tells nothing. */
const layouts: [name: string, variant: string][] = [
  ["us", ""],
  ["de", ""],
  ["fr", ""],
  ["ch", ""],
  ["ch", "fr"],
  ["se", ""],
  ["no", ""],
  ["dk", ""],
  ["fi", ""],
  ["tr", ""],
  ["jp", ""],
  ["ara", ""],
];

/** Has the browser know a layout as Chromium does, or none; the page asks when its window gets the focus. */
const setLayout = (layout: LayoutKey[] | undefined, language = "en") =>
  page.evaluate(
    ({ map, language }) => {
      Object.defineProperty(navigator, "language", { configurable: true, get: () => language });
      const keyboard = (navigator as unknown as { keyboard: { getLayoutMap: unknown } }).keyboard;
      keyboard.getLayoutMap = async () => new Map(map ?? []);
      window.dispatchEvent(new Event("focus"));
    },
    {
      language,
      map: layout?.flatMap(({ key, levels }) => {
        const code = codeOf.get(key);
        const text = levels[0]?.text ?? "";
        return code === undefined || text === "" ? [] : [[code, text] as [string, string]];
      }),
    },
  );

/** Waits until the session's X server has the layout. */
async function followed(name: string, variant: string): Promise<void> {
  const want = new RegExp(`layout: +${name}(,us)?\\n${variant && `variant: +${variant},?\\n`}`);
  let said = "";
  for (const end = performance.now() + 20_000; performance.now() < end; ) {
    said = await region.x(session, "setxkbmap", "-query");
    if (want.test(said)) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the session's keyboard is not ${name} ${variant}: ${said}`);
}

let strokes = 0;
async function typeAll(layout: LayoutKey[], style: AltGrStyle): Promise<void> {
  const want = keyboard.typeAll(layout, style);
  expect([...want].length).toBeGreaterThan(90);
  const got = await typed(want);
  const why = got === want ? "" : `\n${await trace(want)}\n`;
  expect(wrong(got, want), `AltGr as on ${style}${why}`).toEqual([]);
  strokes += keyboard.strokes;
  keyboard.strokes = 0;
}

describe("every key of a layout at every level", () => {
  for (const [name, variant] of layouts.filter(([n]) => /de|tr|ara/.test(n))) {
    it(`${name}, on a session with an American keyboard`, async () => {
      await setLayout(undefined);
      await typeAll(await tools.layout(name, variant), "windows");
    });
  }
  for (const [name, variant] of layouts) {
    it(`${name} ${variant}`.trim(), async () => {
      const layout = await tools.layout(name, variant);
      await setLayout(layout, name === "fi" ? "fi-FI" : "en"); // Swedish but for AltGr
      await followed(name, variant);
      reader.clear();
      await typeAll(layout, name === "fr" || name === "no" ? "windows" : "linux");
    });
  }
  it("was thousands of keystrokes", () => {
    expect(strokes).toBeGreaterThan(4000);
  });
});

describe("a followed German keyboard", () => {
  beforeAll(async () => {
    await setLayout(await tools.layout("de"));
    await followed("de", "");
  });
  const downs = async (count: number) => {
    await keyboard.flush();
    await reader.until(() => reader.downs().length >= count, `${count} keys`);
    await reader.settle();
    return reader
      .downs()
      .map(({ state, sym }) => [
        state & 4 && "Ctrl",
        state & 8 && "Alt",
        state & 64 && "Super",
        sym,
      ])
      .map((parts) => parts.filter(Boolean).join("+"));
  };

  it("types ten thousand characters of any script as text, whole and in order", async () => {
    const scripts = [
      "Straße, ",
      "Жук ",
      "漢字仮名",
      "한국어",
      "مرحبا",
      "🐈👩🏽‍🚀",
      "ไทย",
      "∀x∈ℝ",
      "𝔄𐍈",
    ];
    let want = "";
    for (let i = 0; [...want].length < 10_000; i++) {
      want += scripts[i % scripts.length] + String.fromCodePoint(0x4e00 + ((i * 7) % 1500));
    }
    want = [...want].slice(0, 10_000).join("");
    await devtools.send("Input.insertText", { text: want });
    expect(wrong(await typed(want), want)).toEqual([]);
    const mappings = reader.seen.filter(({ t }) => t === "mapping").length;
    expect(mappings).toBeLessThan(1000); // and not one or more for every new character
  });

  it("refuses a text that is too long, and says so", async () => {
    await page.evaluate(() => {
      const field = document.querySelector("textarea") as HTMLTextAreaElement;
      field.value = "x".repeat(10 << 20);
      field.dispatchEvent(new InputEvent("input"));
    });
    await page.getByText("more than 100,000 characters").waitFor();
    await page.getByRole("button", { name: "Dismiss" }).click();
    keyboard.tap("KeyA", "a");
    expect(await typed("a")).toBe("a");
  });

  it("leaves half characters out", async () => {
    await page.evaluate(() => {
      const field = document.querySelector("textarea") as HTMLTextAreaElement;
      field.value = "a\ud83db\ude00c";
      field.dispatchEvent(new InputEvent("input"));
    });
    expect(await typed("abc")).toBe("abc");
  });

  it("lets modifiers go that the page did not hear of", async () => {
    keyboard.down("ShiftLeft", "Shift", mod.shift);
    await keyboard.flush();
    await page.evaluate(() => window.dispatchEvent(new Event("blur")));
    keyboard.tap("KeyA", "a");
    keyboard.down("AltLeft", "Alt", mod.alt); // and Alt+Tab away: nothing more is heard
    keyboard.tap("KeyB", "b");
    keyboard.down("ControlLeft", "Control", mod.ctrl);
    keyboard.tap("KeyV", "v", mod.ctrl);
    keyboard.tap("KeyC", "c");
    expect(await downs(7)).toEqual(["Shift_L", "a", "Alt_L", "b", "Control_L", "Ctrl+v", "c"]);
  });

  it("types what the user's CapsLock makes of a key, whatever the session's is", async () => {
    await region.x(session, "xdotool", "key", "Caps_Lock", "key", "Num_Lock");
    await reader.until(() => reader.downs().length >= 2, "the locks");
    reader.clear();
    keyboard.tap("KeyA", "a");
    keyboard.tap("KeyA", "A");
    keyboard.tap("BracketLeft", "Ü");
    expect(await typed("aAÜ")).toBe("aAÜ");
  });

  it("repeats as the browser does and not by itself", async () => {
    keyboard.down("KeyR", "r");
    for (let i = 0; i < 4; i++) {
      keyboard.down("KeyR", "r", 0, { autoRepeat: true });
    }
    expect(await typed("rrrrr")).toBe("rrrrr"); // its up is lost
    keyboard.tap("KeyS", "s");
    expect(await typed("rrrrrs")).toBe("rrrrrs");
  });

  it("sends shortcuts by their character, and by their place from other scripts", async () => {
    keyboard.down("ControlLeft", "Control", mod.ctrl);
    keyboard.tap("KeyY", "z", mod.ctrl);
    keyboard.tap("KeyC", "ؤ", mod.ctrl);
    keyboard.tap("KeyZ", "я", mod.ctrl);
    keyboard.down("ShiftLeft", "Shift", mod.ctrl | mod.shift);
    keyboard.tap("KeyT", "T", mod.ctrl | mod.shift);
    keyboard.up("ShiftLeft", "Shift", mod.ctrl);
    keyboard.up("ControlLeft", "Control");
    keyboard.down("AltLeft", "Alt", mod.alt);
    keyboard.tap("F3", "F3", mod.alt); // the window manager takes Alt+F4
    keyboard.up("AltLeft", "Alt");
    keyboard.down("MetaLeft", "Meta", mod.meta);
    keyboard.tap("KeyE", "e", mod.meta);
    keyboard.up("MetaLeft", "Meta");
    expect(await downs(10)).toEqual(
      "Control_L Ctrl+z Ctrl+c Ctrl+z Ctrl+Shift_L Ctrl+T Alt_L Alt+F3 Super_L Super+e".split(" "),
    );
  });

  it("knows keys without characters", async () => {
    const keys: [code: string, key: string, sym: string, location?: number][] = [
      ["F1", "F1", "F1"],
      ["F12", "F12", "F12"],
      ["Escape", "Escape", "Escape"],
      ["ArrowLeft", "ArrowLeft", "Left"],
      ["Insert", "Insert", "Insert"],
      ["Delete", "Delete", "Delete"],
      ["Numpad7", "7", "KP_7", 3],
      ["Numpad7", "Home", "KP_Home", 3],
      ["NumpadEnter", "Enter", "KP_Enter", 3],
      ["NumpadDivide", "/", "KP_Divide", 3],
      ["NumpadDecimal", ",", "KP_Separator", 3],
      ["AudioVolumeUp", "AudioVolumeUp", "XF86AudioRaiseVolume"],
      ["MediaPlayPause", "MediaPlayPause", "XF86AudioPlay"],
      ["PrintScreen", "PrintScreen", "Print"],
      ["ContextMenu", "ContextMenu", "Menu"],
    ];
    for (const [code, key, , location = 0] of keys) {
      keyboard.tap(code, key, 0, { location });
    }
    keyboard.tap("AltRight", "Compose"); // the browser composes, and names what comes of it
    keyboard.tap("KeyE", "œ");
    expect(await downs(keys.length + 1)).toEqual([...keys.map(([, , sym]) => sym), "U0153"]);
  });

  it("passes keys on by their place, dead ones too, when asked to", async () => {
    const chord = mod.ctrl | mod.alt | mod.shift;
    keyboard.tap("KeyK", "K", chord);
    keyboard.tap("Equal", "Dead");
    keyboard.tap("KeyE", "é");
    keyboard.tap("KeyY", "z");
    const text = await typed("éz");
    keyboard.tap("KeyK", "K", chord);
    await keyboard.flush();
    expect(text).toBe("éz");
  });

  it("types what input methods compose, once, and shows it meanwhile", async () => {
    const compose = (text: string) =>
      devtools.send("Input.imeSetComposition", {
        text,
        selectionStart: text.length,
        selectionEnd: text.length,
      });
    const composed: [steps: string[], commit: string][] = [
      [["n", "に", "にほん", "日本"], "日本"],
      [["ni", "nihao"], "你好"],
      [["ㅎ", "하", "한"], "한"],
    ];
    for (const [steps, commit] of composed) {
      for (const step of steps) {
        await compose(step);
      }
      const shown = page.locator("textarea.composing");
      expect(await shown.inputValue()).toBe(steps.at(-1));
      expect(Number(await shown.evaluate((e) => getComputedStyle(e).opacity))).toBe(1);
      await devtools.send("Input.insertText", { text: commit });
    }
    keyboard.tap("KeyX", "x");
    expect(await typed("日本你好한x")).toBe("日本你好한x");
  });

  it("has all buttons and both directions of the wheel, in fractions", async () => {
    const mouse = (type: string, more: object) =>
      devtools.send("Input.dispatchMouseEvent", { type, x: 200, y: 100, ...more } as never);
    for (const button of ["left", "middle", "right", "back", "forward"]) {
      await mouse("mousePressed", { button, clickCount: 1 });
      await mouse("mouseReleased", { button, clickCount: 1 });
    }
    await page.evaluate(() => {
      // As of a touchpad; DevTools' own events are whole notches.
      const init = { deltaY: 25, clientX: 200, clientY: 100, cancelable: true, bubbles: true };
      for (let i = 0; i < 5; i++) {
        document.querySelector(".penstock-stage")?.dispatchEvent(new WheelEvent("wheel", init));
      }
    });
    await mouse("mouseWheel", { deltaX: -120, deltaY: 0 });
    const pressed = () => reader.seen.flatMap((s) => (s.t === "press" ? [s.button] : []));
    await reader.until(() => pressed().length >= 7, "the buttons");
    await reader.settle();
    expect(pressed()).toEqual([1, 2, 3, 8, 9, 5, 6]);
  });

  it("locks the pointer while the application hides it, and moves it by what the mouse moves", async () => {
    await page.mouse.move(300, 200);
    reader.command("hide");
    await page.waitForFunction(
      () => (document.querySelector(".penstock-stage") as HTMLElement).style.cursor === "none",
    );
    const locked = () => page.evaluate(() => document.pointerLockElement !== null);
    await page.mouse.click(300, 200);
    await expect.poll(locked, { timeout: 20_000 }).toBe(true);
    await reader.settle();
    reader.clear();
    await page.mouse.move(310, 205);
    await page.mouse.move(330, 215);
    const last = () => reader.seen.flatMap((s) => (s.t === "move" ? [s] : [])).at(-1);
    await reader.until(() => last()?.x === 330, "the movement");
    expect(last()).toMatchObject({ x: 330, y: 215 });
    reader.command("show");
    await expect.poll(locked, { timeout: 20_000 }).toBe(false);
  });
});

describe("a phone", () => {
  let agent: FakeAgent;
  let phone: BrowserContext;
  let touch: CDPSession;
  let view: Page;
  beforeAll(async () => {
    agent = new FakeAgent();
    agent.paint = (a) => [
      { kind: "fill", fills: [{ x: 0, y: 0, width: a.width, height: a.height, r: 9, g: 9, b: 9 }] },
    ];
    await agent.start();
    phone = await browser.newContext({
      viewport: { width: 400, height: 700 },
      hasTouch: true,
      isMobile: true,
    });
    view = await phone.newPage();
    touch = await phone.newCDPSession(view);
    await view.goto(`${agent.url}#t=first.sig`);
    await streaming(view);
  });
  afterAll(async () => {
    await phone?.close();
    await agent?.stop();
  });
  beforeEach(() => {
    agent.received.length = 0;
  });

  type Place = [x: number, y: number];
  const fingers = (type: string, ...places: Place[]) =>
    touch.send("Input.dispatchTouchEvent", {
      type,
      touchPoints: places.map(([x, y], id) => ({ x, y, id })),
    } as never);
  const buttons = () => agent.received.flatMap((m) => (m.kind === "pointer" ? [m.buttons] : []));

  it("clicks by a tap, right-clicks by a long press and drags", async () => {
    await fingers("touchStart", [100, 200]);
    await fingers("touchEnd");
    await agent.until(() => buttons().length === 3, "the click");
    expect(agent.received.filter((m) => m.kind === "pointer")).toMatchObject([
      { x: 100, y: 200, buttons: 0 },
      { x: 100, y: 200, buttons: 1 },
      { x: 100, y: 200, buttons: 0 },
    ]);
    agent.received.length = 0;
    await fingers("touchStart", [100, 200]);
    await agent.until(() => buttons().includes(4), "the right click");
    await fingers("touchEnd");
    expect(buttons()).not.toContain(1);
    agent.received.length = 0;
    await fingers("touchStart", [100, 200]);
    await fingers("touchMove", [130, 200]);
    await fingers("touchMove", [180, 240]);
    await fingers("touchEnd");
    await agent.until(() => buttons().includes(1) && buttons().at(-1) === 0, "the end of the drag");
    expect(agent.received.at(-1)).toMatchObject({ x: 180, y: 240, buttons: 0 });
  });

  it("scrolls with two fingers and zooms the picture when they spread", async () => {
    await fingers("touchStart", [100, 300], [160, 300]);
    for (let y = 290; y >= 200; y -= 10) {
      await fingers("touchMove", [100, y], [160, y]);
    }
    await fingers("touchEnd");
    const turned = () =>
      agent.received.reduce((sum, m) => sum + (m.kind === "wheel" ? m.dy : 0), 0);
    await agent.until(() => turned() > 120, "the wheel");
    expect(buttons().every((b) => b === 0)).toBe(true);
    const width = () => view.evaluate(() => document.querySelector("#screen")?.clientWidth ?? 0);
    const before = await width();
    await fingers("touchStart", [180, 300], [220, 300]);
    for (let d = 30; d <= 120; d += 10) {
      await fingers("touchMove", [200 - d, 300], [200 + d, 300]);
    }
    await fingers("touchEnd");
    await expect.poll(width).toBeGreaterThan(before);
  });

  it("opens the screen keyboard by a button, and takes text, corrections and Backspace from it", async () => {
    await view.getByRole("button", { name: "Keyboard", exact: true }).dispatchEvent("click");
    expect(await view.evaluate(() => document.activeElement?.tagName)).toBe("TEXTAREA");
    agent.received.length = 0;
    const got = () =>
      agent.received.flatMap((m) =>
        m.kind === "text" ? [m.text] : m.kind === "key" && m.down ? [`<${m.key}>`] : [],
      );
    for (const text of ["t", "te", "teh"]) {
      await touch.send("Input.imeSetComposition", { text, selectionStart: 3, selectionEnd: 3 });
    }
    await touch.send("Input.insertText", { text: "teh" });
    await agent.until(() => got().join("") === "teh", "the word");
    // A correction of what was written.
    await view.evaluate(() => {
      const field = document.querySelector("textarea") as HTMLTextAreaElement;
      field.setSelectionRange(field.value.length - 2, field.value.length);
      document.execCommand("insertText", false, "he");
    });
    await agent.until(() => got().at(-1) === "he", "the correction");
    await view.evaluate(() => document.execCommand("delete"));
    await agent.until(() => got().at(-1) === "<Backspace>", "Backspace");
    expect(got()).toEqual(["teh", "<Backspace>", "<Backspace>", "he", "<Backspace>"]);
  });
});
