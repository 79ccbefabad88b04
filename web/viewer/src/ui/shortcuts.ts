/** Shortcuts of the viewer: Ctrl+Alt+Shift and a physical key. The session never sees the key itself. */
export type Shortcuts = Readonly<Record<string, () => void>>;

/** Runs shortcuts, by KeyboardEvent.code, before anything else of the page hears of the key, until signal ends. */
export function listenForShortcuts(target: Window, keys: Shortcuts, signal: AbortSignal): void {
  target.addEventListener(
    "keydown",
    (event) => {
      const action = keys[event.code];
      // AltGr, which some browsers tell of as Control and Alt, makes characters.
      const graph = event.getModifierState("AltGraph");
      if (action === undefined || !event.ctrlKey || !event.altKey || !event.shiftKey || graph) {
        return;
      }
      event.preventDefault();
      event.stopImmediatePropagation();
      action();
    },
    { capture: true, signal },
  );
}
