type Child = Node | string;

/** Makes an element; attributes with the value false are left out. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | boolean> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children);
  return node;
}

const svg = "http://www.w3.org/2000/svg";

/** A decorative line icon of 24×24 from one path. */
export function icon(path: string): SVGSVGElement {
  const node = document.createElementNS(svg, "svg");
  node.setAttribute("viewBox", "0 0 24 24");
  node.setAttribute("aria-hidden", "true");
  node.setAttribute("focusable", "false");
  const line = document.createElementNS(svg, "path");
  line.setAttribute("d", path);
  node.append(line);
  return node;
}
