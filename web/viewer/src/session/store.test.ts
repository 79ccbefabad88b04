import { expect, it } from "vitest";
import { type KeyValues, StoredSession } from "./store.ts";

function memory(): KeyValues {
  const values = new Map<string, string>();
  return {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => void values.set(key, value),
    removeItem: (key) => void values.delete(key),
  };
}

it("counts input from 1 and goes on above it after a reload", () => {
  const values = memory();
  const page = new StoredSession(values);
  expect([page.nextSeq(), page.nextSeq()]).toEqual([1, 2]);
  let greatest = 2;
  for (let i = 0; i < 10_000; i++) {
    const seq = page.nextSeq();
    expect(seq).toBe(greatest + 1);
    greatest = seq;
  }
  const reloaded = new StoredSession(values);
  expect(reloaded.nextSeq()).toBeGreaterThan(greatest);
});

it("keeps the newest resume ticket over a reload and forgets it", () => {
  const values = memory();
  new StoredSession(values).keepResumeTicket("a.b");
  const reloaded = new StoredSession(values);
  expect(reloaded.resumeTicket()).toBe("a.b");
  reloaded.forget();
  expect(new StoredSession(values).resumeTicket()).toBeUndefined();
});

it("starts anew with a new session", () => {
  const values = memory();
  const before = new StoredSession(values);
  before.keepResumeTicket("a.b");
  before.nextSeq();
  const page = new StoredSession(values);
  page.startAnew();
  expect(page.resumeTicket()).toBeUndefined();
  expect(page.nextSeq()).toBe(1);
});

it("works without storage", () => {
  const refuse = () => {
    throw new Error("blocked");
  };
  const page = new StoredSession({ getItem: refuse, setItem: refuse, removeItem: refuse });
  page.keepResumeTicket("a.b");
  expect(page.resumeTicket()).toBe("a.b");
  expect(page.nextSeq()).toBe(1);
  page.forget();
});
