import { closeCode, endedCode } from "@penstock/protocol";
import { expect, it } from "vitest";
import { endText } from "./texts.ts";

it("has plain words for every end of a session", () => {
  const titles = Object.values(endedCode).map(
    (code) => endText({ kind: "ended", code, reason: "" }).title,
  );
  expect(new Set(titles).size).toBe(titles.length);
  expect(titles).not.toContain("The session ended");
  expect(endText({ kind: "ended", code: 99, reason: "new reason" })).toEqual({
    title: "The session ended",
    body: "new reason",
    code: "ended-99",
  });
});

it("has plain words for every refusal", () => {
  const retried: number[] = [closeCode.tooSlow, closeCode.internal, closeCode.agentUnreachable];
  for (const code of Object.values(closeCode)) {
    const text = endText({ kind: "refused", code, reason: "the ticket is old" });
    expect(text.body).toContain("The ticket is old.");
    expect(text.code).toContain(String(code));
    expect(text.title === "The endpoint closed the connection").toBe(retried.includes(code));
  }
});
