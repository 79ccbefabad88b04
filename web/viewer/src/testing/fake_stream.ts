import { encode, type Section, updateFlag } from "@penstock/protocol";
import { BlockStream, concat } from "./zstd_blocks.ts";

/** The agent's side of a display connection. */
export class FakeStream {
  blocks = new BlockStream();
  seq = 0;
  epoch = 0;
  width = 100;
  height = 70;

  update(sections: Section[], flags = 0): Uint8Array {
    return encode({
      kind: "update",
      seq: ++this.seq,
      epoch: this.epoch,
      flags,
      captureMicros: 0n,
      width: this.width,
      height: this.height,
      sections,
    });
  }

  tiles(...records: Uint8Array[]): Section {
    const raw = concat(records);
    return { kind: "tiles", rawLength: raw.byteLength, data: this.blocks.run(raw) };
  }

  newEpoch(...records: Uint8Array[]): Uint8Array {
    this.epoch++;
    this.blocks = new BlockStream();
    return this.update(records.length > 0 ? [this.tiles(...records)] : [], updateFlag.newEpoch);
  }
}
