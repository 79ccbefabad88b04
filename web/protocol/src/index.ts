/** TypeScript twin of internal/wire/channel: the channel protocol of docs/protocol.md. Needs no DOM. */
export {
  decodeControlFromAgent,
  decodeControlFromViewer,
  decodeDisplayFromAgent,
  decodeDisplayFromViewer,
} from "./decode.ts";
export { encode } from "./encode.ts";
export { BadMessage } from "./errors.ts";
export * from "./messages.ts";
