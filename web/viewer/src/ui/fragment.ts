/** What the fragment of the page's URL asks for: #t=<ticket>&r=<width>x<height>. */
export interface Fragment {
  ticket?: string;
  fixedSize?: { width: number; height: number };
}

export function parseFragment(hash: string): Fragment {
  const values = new URLSearchParams(hash.replace(/^#/, ""));
  const fragment: Fragment = {};
  const ticket = values.get("t");
  if (ticket) {
    fragment.ticket = ticket;
  }
  const size = parseSize(values.get("r"));
  if (size !== undefined) {
    fragment.fixedSize = size;
  }
  return fragment;
}

/** A size like "1280x720"; undefined when it is none or out of range. */
export function parseSize(text: string | null): { width: number; height: number } | undefined {
  const match = /^(\d{2,5})[xX](\d{2,5})$/.exec(text ?? "");
  const width = Number(match?.[1]);
  const height = Number(match?.[2]);
  if (!(width >= 64 && width <= 16384 && height >= 64 && height <= 16384)) {
    return undefined;
  }
  return { width, height };
}
