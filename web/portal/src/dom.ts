/** An element with attributes and children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** A button that does something else than send a form. */
export function button(text: string, kind: string, act: () => void): HTMLButtonElement {
  const node = element(
    "button",
    kind === "" ? { type: "button" } : { type: "button", class: kind },
  );
  node.textContent = text;
  node.addEventListener("click", act);
  return node;
}

export interface Field {
  name: string;
  label: string;
  /** Shown below the field. */
  hint?: string;
  type?: "text" | "password" | "email";
  autocomplete: string;
  inputmode?: string;
  value?: string;
}

export interface Form {
  node: HTMLFormElement;
  /** Says what went wrong; the field, if any, is marked and gets the focus. */
  fail(message: string, field?: string): void;
  focus(): void;
}

/**
 * A form with labelled fields and one button. While submit runs the button waits; what it throws is shown by describe, in a live
 * region, with the focus on the field that describe names.
 */
export function form(
  fields: Field[],
  submitText: string,
  submit: (values: Record<string, string>) => Promise<void>,
  describe: (cause: unknown) => { message: string; field?: string },
): Form {
  const problem = element("p", { class: "problem", role: "alert", id: "problem" });
  const send = element("button", { type: "submit", class: "primary" }, submitText);
  const inputs = new Map<string, HTMLInputElement>();
  const rows = fields.map((field) => {
    const input = element("input", {
      id: `field-${field.name}`,
      name: field.name,
      type: field.type ?? "text",
      autocomplete: field.autocomplete,
      autocapitalize: "none",
      spellcheck: "false",
      required: "",
      value: field.value ?? "",
    });
    if (field.inputmode !== undefined) {
      input.setAttribute("inputmode", field.inputmode);
    }
    inputs.set(field.name, input);
    const row = element(
      "div",
      { class: "field" },
      element("label", { for: input.id }, field.label),
      input,
    );
    if (field.hint !== undefined) {
      const hint = element("p", { class: "quiet small", id: `hint-${field.name}` }, field.hint);
      input.setAttribute("aria-describedby", hint.id);
      row.append(hint);
    }
    return row;
  });
  const node = element(
    "form",
    { novalidate: "" },
    problem,
    ...rows,
    element("div", { class: "actions" }, send),
  );
  const fail = (message: string, field?: string) => {
    problem.textContent = message;
    for (const [name, input] of inputs) {
      if (name === field) {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-errormessage", problem.id);
        input.focus();
        input.select();
      } else {
        input.removeAttribute("aria-invalid");
        input.removeAttribute("aria-errormessage");
      }
    }
  };
  node.addEventListener("submit", (event) => {
    event.preventDefault();
    if (send.getAttribute("aria-disabled") === "true") {
      return;
    }
    const values: Record<string, string> = {};
    for (const [name, input] of inputs) {
      values[name] = input.value;
    }
    fail("");
    send.setAttribute("aria-disabled", "true");
    submit(values)
      .catch((cause: unknown) => {
        const { message, field } = describe(cause);
        fail(message, field);
      })
      .finally(() => send.removeAttribute("aria-disabled"));
  });
  return {
    node,
    fail,
    focus: () => {
      const empty = [...inputs.values()].find((input) => input.value === "");
      (empty ?? [...inputs.values()][0])?.focus();
    },
  };
}

const svg = "http://www.w3.org/2000/svg";
/** Modules around a QR code that stay light (ISO/IEC 18004). */
const quiet = 4;

/** A QR code from the rows that the server drew: "1" is a dark module. */
export function qrCode(rows: string[], label: string): SVGElement {
  const size = rows.length + 2 * quiet;
  const node = document.createElementNS(svg, "svg");
  node.setAttribute("viewBox", `0 0 ${size} ${size}`);
  node.setAttribute("class", "qr");
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  node.setAttribute("shape-rendering", "crispEdges");
  const path = document.createElementNS(svg, "path");
  let d = "";
  rows.forEach((row, y) => {
    for (let x = 0; x < row.length; x++) {
      if (row[x] === "1") {
        d += `M${x + quiet} ${y + quiet}h1v1h-1z`;
      }
    }
  });
  path.setAttribute("d", d);
  node.append(path);
  return node;
}
