/** What outlives a reload of the page: the resume ticket and the input sequence. */
export interface SessionStore {
  resumeTicket(): string | undefined;
  keepResumeTicket(ticket: string): void;
  /** The next input sequence number: always greater than any before, also before a reload. */
  nextSeq(): number;
  forget(): void;
}

const ticketKey = "penstock.resume";
const seqKey = "penstock.seq";
/** Sequence numbers are reserved in blocks, so that storage is written seldom. */
const block = 4096;

/** Part of Storage that is needed; sessionStorage in the page. */
export type KeyValues = Pick<Storage, "getItem" | "setItem" | "removeItem">;

/** Keeps the state in memory and in values; values that refuse (storage blocked) are done without. */
export class StoredSession implements SessionStore {
  readonly #values: KeyValues | undefined;
  #ticket: string | undefined;
  #seq: number;
  #reserved: number;

  constructor(values: KeyValues | undefined) {
    this.#values = values;
    this.#ticket = this.#get(ticketKey);
    this.#seq = Number(this.#get(seqKey) ?? 0) || 0;
    this.#reserved = this.#seq;
  }

  resumeTicket(): string | undefined {
    return this.#ticket;
  }

  keepResumeTicket(ticket: string): void {
    this.#ticket = ticket;
    this.#set(ticketKey, ticket);
  }

  nextSeq(): number {
    this.#seq++;
    if (this.#seq >= this.#reserved) {
      this.#reserved = this.#seq + block;
      this.#set(seqKey, String(this.#reserved));
    }
    return this.#seq;
  }

  /** Begins a new session: nothing of an earlier one counts. */
  startAnew(): void {
    this.forget();
    this.#seq = 0;
    this.#reserved = 0;
  }

  forget(): void {
    this.#ticket = undefined;
    try {
      this.#values?.removeItem(ticketKey);
      this.#values?.removeItem(seqKey);
    } catch {
      // storage is blocked: nothing was kept
    }
  }

  #get(key: string): string | undefined {
    try {
      return this.#values?.getItem(key) ?? undefined;
    } catch {
      return undefined;
    }
  }

  #set(key: string, value: string): void {
    try {
      this.#values?.setItem(key, value);
    } catch {
      // storage is blocked: memory has it
    }
  }
}
