// TextEncoder and TextDecoder belong to the platform, not to ECMAScript; both are in every browser,
// worker and Node. Declared here so that this package needs no DOM.
declare const TextEncoder: new () => {
  encode(text: string): Uint8Array<ArrayBuffer>;
};
declare const TextDecoder: new (
  label: string,
  options: { fatal: boolean; ignoreBOM: boolean },
) => { decode(bytes: Uint8Array): string };

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The text in UTF-8, cut at the end of a character when it has more than limit bytes. */
export function encodeUtf8(text: string, limit: number): Uint8Array<ArrayBuffer> {
  const bytes = encoder.encode(text);
  if (bytes.byteLength <= limit) {
    return bytes;
  }
  let end = limit;
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) {
    end--;
  }
  return bytes.subarray(0, end);
}

/** The text, or undefined when the bytes are not UTF-8. */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return decoder.decode(bytes);
  } catch {
    return undefined;
  }
}
