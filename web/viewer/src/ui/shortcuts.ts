/** Shortcuts of the viewer: Ctrl+Alt+Shift and a physical key. The session never sees the key itself. */
export type Shortcuts = Readonly<Record<string, () => void>>;

/** Runs shortcuts, by KeyboardEvent.code, before anything else of the page hears of the key, until signal ends. */
export function listenForShortcuts(target: Window, keys: Shortcuts, signal: AbortSignal): void {
  // AltGr, which some browsers tell of as Control and Alt, makes characters.
  let graph = false;
  const note = (event: KeyboardEvent) => {
    if (event.key === "AltGraph") {
      graph = event.type === "keydown";
    }
  };
  target.addEventListener("keyup", note, { capture: true, signal });
  target.addEventListener(
    "blur",
    () => {
      graph = false;
    },
    { signal },
  );
  target.addEventListener(
    "keydown",
    (event) => {
      note(event);
      const action = keys[event.code];
      const held = event.ctrlKey && event.altKey && event.shiftKey;
      if (action === undefined || !held || graph || event.getModifierState("AltGraph")) {
        return;
      }
      event.preventDefault();
      event.stopImmediatePropagation();
      action();
    },
    { capture: true, signal },
  );
}
