/** What the session hears of the display channel. */
export interface DisplayChannelEvents {
  opened(): void;
  /** The first picture of an epoch is on the canvas. */
  drawn(width: number, height: number): void;
  closed(code: number, reason: string, opened: boolean): void;
  /** The channel can never work in this browser. */
  failed(code: "no-decoder" | "no-picture", reason: string): void;
}

/** The display channel as the session sees it: in a worker, in the page, or a fake in tests. */
export interface DisplayChannel {
  listen(events: DisplayChannelEvents): void;
  /** Ends the connection before, if there is one, without an event. */
  open(url: string, ticket: string): void;
  close(): void;
  refresh(reason: number): void;
  /** Whether a second window can show a part of the picture. */
  readonly canShowSecond?: boolean;
  /** Has a second window show a part of the picture; undefined: none does. */
  showSecond?(part: { x: number; y: number; width: number; height: number } | undefined): void;
  /** Somebody uses the session: the channel makes sure that it still lives. Cheap, for every input. */
  check(): void;
}
