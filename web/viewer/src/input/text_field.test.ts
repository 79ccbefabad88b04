import { expect, it } from "vitest";
import { TextField } from "./text_field.ts";

function field(most = 100) {
  const seen: string[] = [];
  const element = { value: "" };
  const sink = {
    text: (text: string) => {
      if (text.length > most) {
        return false;
      }
      seen.push(text);
      return true;
    },
    tap: (code: string) => seen.push(`<${code}>`),
  };
  return { seen, element, text: new TextField(element, sink, () => seen.push("refused")) };
}

it("types what was written and empties the field", () => {
  const { seen, element, text } = field();
  element.value = "日本";
  text.sync();
  text.sync();
  expect(seen).toEqual(["日本"]);
  expect(element.value).toBe("");
});

it("keeps text for a screen keyboard, whose corrections become Backspaces and text", () => {
  const { seen, element, text } = field();
  text.keeps = true;
  element.value += "teh";
  text.sync();
  element.value = element.value.replace("teh", "the ");
  text.sync();
  element.value = element.value.slice(0, -1);
  text.sync();
  expect(seen).toEqual(["teh", "<Backspace>", "<Backspace>", "he ", "<Backspace>"]);
});

it("has something to take away even when nothing was written, again and again", () => {
  const { seen, element, text } = field();
  text.keeps = true;
  for (let i = 0; i < 3; i++) {
    element.value = element.value.slice(0, -1);
    text.sync();
  }
  expect(seen).toEqual(["<Backspace>", "<Backspace>", "<Backspace>"]);
});

it("takes characters beyond U+FFFF as one", () => {
  const { seen, element, text } = field();
  text.keeps = true;
  element.value += "🐈";
  text.sync();
  element.value = element.value.replace("🐈", "🐉");
  text.sync();
  expect(seen).toEqual(["🐈", "<Backspace>", "🐉"]);
});

it("tells of a text that is refused, and goes on", () => {
  const { seen, element, text } = field(3);
  element.value = "four";
  text.sync();
  element.value = "abc";
  text.sync();
  expect(seen).toEqual(["refused", "abc"]);
});
