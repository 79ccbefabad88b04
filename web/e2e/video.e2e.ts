// JPEG and video in a real Chromium, with its own decoders.
import { codec, videoFlag } from "@penstock/protocol";
import { beforeEach, describe, expect, it } from "vitest";
import { solidTile } from "../viewer/src/testing/tile_records.ts";
import type { FakeAgent } from "./fake_agent.ts";
import { fakeSession, green, grey, ground, quarters, red, slate } from "./fake_session.ts";
import { type Codec, endSection, everyCodec, jpegSection, videoSection } from "./streams.ts";

const session = fakeSession();
const { open, streaming, shows, stats, inWorker } = session;

const acknowledged = (seq: number) =>
  session.agent.until(() => session.agent.acks.some((ack) => ack.seq === seq), `ack ${seq}`);

let agent: FakeAgent;
beforeEach(() => {
  agent = session.agent;
});

describe.each<Codec>(["h264", "vp8"])("video in %s", (name) => {
  it("is shown in the right colours, picture by picture, and stays when it ends", async () => {
    await open();
    expect(agent.starts).toEqual([everyCodec]);
    for (let n = 0; n < 12; n++) {
      agent.update([videoSection(name, n, 100, 50)]);
      await acknowledged(n + 2);
      if (n % 5 === 0) {
        await shows(quarters(100, 50, n));
      }
    }
    await shows([...quarters(100, 50, 11), [99, 100, slate], [420, 100, slate]]);
    agent.update([endSection(), agent.tiles(solidTile(2, 2, [1, 2, 3]))]);
    await shows([
      [130, 130, [1, 2, 3]],
      [100 + 240, 50 + 60, green],
      [100 + 240, 50 + 180, grey(11)],
    ]);
    await expect.poll(async () => (await stats()).video.frames).toBe(12);
    expect(await stats()).toMatchObject({
      recoveries: 0,
      video: { codec: name, path: expect.stringMatching(/copy|draw/) },
    });
    expect((await stats()).video.decodeMs).toBeGreaterThan(0);
    expect(agent.refreshes).toEqual([]);
  });

  it("is cut or stretched to its rectangle, in two regions at once", async () => {
    await open();
    agent.update([
      videoSection(name, 0, 0, 0, { width: 301, height: 201 }),
      videoSection(name, 0, 320, 240, {
        region: 1,
        width: 160,
        height: 240,
        flags: videoFlag.key | videoFlag.scaled,
      }),
    ]);
    agent.update([videoSection(name, 1, 0, 0, { width: 301, height: 201 })]);
    await shows([
      [80, 60, red],
      [300, 200, grey(1)],
      [301, 200, slate],
      [300, 201, slate],
      [320 + 40, 240 + 60, red],
      [320 + 120, 240 + 60, green],
      [320 + 120, 240 + 180, grey(0)],
      [480, 400, slate],
    ]);
    // What is copied out of the stretched region is what it shows.
    agent.update([
      {
        kind: "copy",
        copies: [{ srcX: 420, srcY: 250, dstX: 500, dstY: 10, width: 50, height: 50 }],
      },
    ]);
    await shows([[520, 30, green]]);
  });

  it("recovers from a broken access unit with a new picture", async () => {
    await open((a) => [...ground(a), videoSection(name, 0, 100, 50)]);
    await shows(quarters(100, 50, 0));
    const broken = new Uint8Array(400).map((_, i) => (i * 97) & 255);
    agent.update([videoSection(name, 1, 100, 50, { data: broken })]);
    await agent.until(() => agent.refreshes.length > 0, "the refresh");
    expect(agent.refreshes).toEqual([1]);
    await shows(quarters(100, 50, 0));
    agent.update([videoSection(name, 1, 100, 50)]);
    await shows(quarters(100, 50, 1));
    expect(await stats()).toMatchObject({ recoveries: 1, epoch: 2 });
  });
});

it("draws video on the canvas where frames cannot be copied", async () => {
  await open();
  await inWorker(() => {
    VideoFrame.prototype.copyTo = () => Promise.reject(new Error("planted"));
  });
  for (let n = 0; n < 4; n++) {
    agent.update([videoSection("h264", n, 100, 50)]);
  }
  await shows(quarters(100, 50, 3));
  expect((await stats()).video).toMatchObject({ frames: 4, path: "draw" });
  // Its pixels are found by copies and kept by what is painted beside them.
  agent.update([
    { kind: "copy", copies: [{ srcX: 110, srcY: 60, dstX: 500, dstY: 10, width: 9, height: 9 }] },
    { kind: "fill", fills: [{ x: 0, y: 100, width: 9, height: 9, r: 1, g: 2, b: 3 }] },
  ]);
  agent.update([videoSection("h264", 4, 100, 50)]);
  agent.update([
    { kind: "fill", fills: [{ x: 600, y: 100, width: 9, height: 9, r: 1, g: 2, b: 3 }] },
  ]);
  await shows([
    ...quarters(100, 50, 4),
    [504, 14, red],
    [4, 104, [1, 2, 3]],
    [604, 104, [1, 2, 3]],
  ]);
  expect(agent.refreshes).toEqual([]);
});

it("takes the path that was faster on the first frames", async () => {
  await open();
  await inWorker(() => {
    const { copyTo } = VideoFrame.prototype;
    VideoFrame.prototype.copyTo = async function (...args) {
      await new Promise((resolve) => setTimeout(resolve, 300)); // beyond what drawing takes on any machine
      return copyTo.apply(this, args);
    };
  });
  for (let n = 0; n < 6; n++) {
    agent.update([videoSection("vp8", n, 100, 50)]);
    await acknowledged(n + 2);
  }
  await shows([...quarters(100, 50, 5), [99, 100, slate]]);
  await expect.poll(async () => (await stats()).video.path).toBe("draw");
  agent.update([endSection(), agent.tiles(solidTile(2, 2, [1, 2, 3]))]);
  await shows([[130, 130, [1, 2, 3]], ...quarters(100, 50, 5).slice(1)]);
  expect(agent.refreshes).toEqual([]);
});

it("shows JPEG, in order with what comes before and after it", async () => {
  await open();
  agent.update([
    { kind: "fill", fills: [{ x: 100, y: 50, width: 200, height: 200, r: 1, g: 2, b: 3 }] },
    jpegSection(100, 50),
    { kind: "fill", fills: [{ x: 110, y: 60, width: 9, height: 9, r: 4, g: 5, b: 6 }] },
  ]);
  agent.update([agent.tiles(solidTile(6, 1, [7, 8, 9]))]);
  await acknowledged(3);
  await shows([...quarters(100, 50, 0), [114, 64, [4, 5, 6]], [390, 90, [7, 8, 9]]]);
  expect(agent.acks.map(({ seq }) => seq)).toEqual([1, 2, 3]);
  await expect.poll(async () => (await stats()).images).toBe(1);
});

it("recovers from a broken JPEG, and offers none after too many", async () => {
  let good = true;
  await open((a) => [
    ...ground(a),
    ...(good ? [jpegSection(0, 0)] : [jpegSection(0, 0, Uint8Array.of(1, 2, 3))]),
  ]);
  agent.update([jpegSection(100, 50, Uint8Array.of(0xff, 0xd8, 0xff, 0xd9))]);
  await agent.until(() => agent.refreshes.length > 0, "the refresh");
  await shows(quarters(0, 0, 0));
  good = false;
  agent.newEpoch();
  await agent.until(() => agent.starts.length > 1, "another start");
  good = true;
  expect(agent.starts).toEqual([everyCodec, everyCodec & ~codec.jpeg]);
  await streaming();
});
