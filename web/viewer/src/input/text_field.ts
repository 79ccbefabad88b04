/** What a field needs of a keyboard. */
export interface TextSink {
  /** False when the text is refused. */
  text(text: string): boolean;
  tap(code: string): void;
}

/** Keeps a line before the text, so that a screen keyboard's Backspace has something to take away. */
const ground = "\n";
/** As much as a screen keyboard needs to correct a word. */
const maxKept = 200;

/**
 * The hidden field that input methods and screen keyboards write into: each change of it becomes Backspaces and text.
 * With a screen keyboard the text stays in it, for corrections; otherwise it is emptied at once. No DOM.
 */
export class TextField {
  readonly #field: { value: string };
  readonly #sink: TextSink;
  readonly #refused: () => void;
  #known = "";
  #keeps = false;

  constructor(field: { value: string }, sink: TextSink, refused: () => void) {
    this.#field = field;
    this.#sink = sink;
    this.#refused = refused;
  }

  /** Whether the text stays in the field. */
  get keeps(): boolean {
    return this.#keeps;
  }

  set keeps(keeps: boolean) {
    this.#keeps = keeps;
    this.reset();
  }

  /** Something else than text happened, as a click: what was written before is out of reach. */
  reset(): void {
    this.#known = this.#keeps ? ground : "";
    if (this.#field.value !== this.#known) {
      this.#field.value = this.#known;
    }
  }

  /** Brings the session to what the field has. */
  sync(): void {
    const before = [...this.#known];
    const after = [...this.#field.value];
    let same = 0;
    while (same < before.length && same < after.length && before[same] === after[same]) {
      same++;
    }
    for (let i = before.length; i > same; i--) {
      this.#sink.tap("Backspace");
    }
    const text = after.slice(same).join("");
    if (text !== "" && !this.#sink.text(text)) {
      this.#refused();
      this.reset();
      return;
    }
    this.#known = this.#field.value;
    if (!this.#keeps || !this.#known.startsWith(ground) || this.#known.length > maxKept) {
      this.reset();
    }
  }
}
