import type { SendInput } from "./keyboard.ts";

/** navigator.keyboard, where the browser has it and the page is secure. */
interface BrowserKeyboard extends EventTarget {
  getLayoutMap?(): Promise<Iterable<[string, string]>>;
}

/**
 * Tells the session which keyboard the user has: when the function that it returns is called, and when the browser
 * says that it changed, or may have while another window had the focus. Where the browser does not know, the session
 * learns it from what is typed.
 */
export function followLayout(send: SendInput, signal: AbortSignal): () => void {
  const { keyboard } = navigator as { keyboard?: BrowserKeyboard };
  let told = "";
  const tell = async () => {
    if (keyboard?.getLayoutMap === undefined) {
      return;
    }
    const keys = [...(await keyboard.getLayoutMap())].map(([code, key]) => ({ code, key }));
    keys.sort((a, b) => (a.code < b.code ? -1 : 1));
    const json = JSON.stringify(keys);
    if (keys.length > 0 && json !== told && !signal.aborted) {
      told = json;
      send({ kind: "keyboard", language: navigator.language, keys });
    }
  };
  const ask = () => void tell().catch(() => {}); // refused in some frames
  keyboard?.addEventListener?.("layoutchange", ask, { signal });
  window.addEventListener("focus", ask, { signal });
  return () => {
    told = "";
    ask();
  };
}
