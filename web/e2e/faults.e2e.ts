// Faults planted in a real Chromium: the viewer gets over each by itself, and shows the right picture.
import { codec, type Section } from "@penstock/protocol";
import type { Browser } from "playwright-core";
import { beforeEach, describe, expect, it } from "vitest";
import { solidTile } from "../viewer/src/testing/tile_records.ts";
import type { FakeAgent } from "./fake_agent.ts";
import { fakeSession, ground, type Point, quarters, slate, wrong } from "./fake_session.ts";
import { everyCodec, videoSection } from "./streams.ts";

const session = fakeSession();
const { open, streaming, shows, stats, inWorker } = session;

let agent: FakeAgent;
beforeEach(() => {
  agent = session.agent;
});

/** A picture with video, and a mark of the epoch's number that no earlier picture has. */
let epochs = 0;
const scene = (a: FakeAgent): Section[] => {
  epochs++;
  return [
    ...ground(a),
    ...((a.starts.at(-1) ?? 0) & codec.h264 ? [videoSection("h264", 0, 100, 50)] : []),
    a.tiles(solidTile(0, 0, [epochs, 2, 3])),
  ];
};

let marks = 0;

/** Waits for the picture of the latest epoch, and for that of an update which comes after it. */
async function whole(video = true): Promise<void> {
  const points: Point[] = [...(video ? quarters(100, 50, 0) : []), [10, 10, [epochs, 2, 3]]];
  await shows([...points, [600, 10, slate]]);
  agent.update([agent.tiles(solidTile(9, 7, [++marks, 5, 6]))]);
  await shows([...points, [600, 450, [marks, 5, 6]]]);
  expect(await session.page.evaluate(() => window.penstock.state)).toBe("streaming");
}

const recoveries = (want: number) =>
  expect.poll(async () => (await stats()).recoveries, { timeout: 30_000 }).toBe(want);

beforeEach(() => {
  epochs = 0;
  marks = 0;
});

describe("decoder", () => {
  it("that never answers: a new picture, then one without video", async () => {
    await open(scene);
    await shows(quarters(100, 50, 0));
    await inWorker(() => {
      VideoDecoder.prototype.decode = () => {};
    });
    agent.update([videoSection("h264", 1, 100, 50)]);
    await agent.until(() => agent.starts.length > 1, "another start", 30_000);
    expect(agent.starts).toEqual([everyCodec, everyCodec & ~codec.h264]);
    expect(agent.refreshes).toEqual([1, 1]);
    await streaming();
    await whole(false);
    await recoveries(3);
  });

  it("that was said to be supported and is not: an offer without it", async () => {
    agent.paint = ground;
    await open();
    await inWorker(() => {
      VideoDecoder.prototype.configure = () => {
        throw new DOMException("planted", "NotSupportedError");
      };
    });
    agent.paint = scene;
    agent.newEpoch();
    await agent.until(() => agent.starts.length > 1, "another start");
    expect(agent.starts).toEqual([everyCodec, everyCodec & ~codec.h264]);
    await streaming();
    await whole(false);
  });

  it("that fails later: a new picture with another decoder", async () => {
    await open(scene);
    await inWorker(() => {
      const { decode } = VideoDecoder.prototype;
      VideoDecoder.prototype.decode = function (chunk) {
        VideoDecoder.prototype.decode = decode;
        this.close();
        decode.call(this, chunk);
      };
    });
    agent.update([videoSection("h264", 1, 100, 50)]);
    await agent.until(() => agent.refreshes.length > 0, "the refresh");
    await whole();
    await recoveries(1);
  });
});

describe("worker", () => {
  beforeEach(async () => {
    await session.page.addInitScript(() => {
      const workers: Worker[] = [];
      (window as unknown as { workers: Worker[] }).workers = workers;
      window.Worker = class extends Worker {
        constructor(url: string | URL, options?: WorkerOptions) {
          super(url, options);
          workers.push(this);
        }
      };
    });
  });
  const terminate = () =>
    session.page.evaluate(() =>
      (window as unknown as { workers: Worker[] }).workers.at(-1)?.terminate(),
    );

  it("that is ended, again and again: new ones, then without video, then the page itself", async () => {
    await open(scene);
    await whole();
    const bytes = (await stats()).bytes.display;
    for (let i = 1; i <= 4; i++) {
      await terminate();
      await agent.until(() => agent.starts.length > i, "another start", 30_000);
      await streaming();
      await whole(i === 1);
      await recoveries(i);
    }
    const plain = codec.tiles | codec.copy | codec.fill | codec.text;
    const silent = everyCodec & ~(codec.h264 | codec.vp8);
    expect(agent.starts).toEqual([everyCodec, everyCodec, silent, silent, plain]);
    expect(await session.page.locator("canvas").count()).toBe(1);
    expect((await stats()).bytes.display).toBeGreaterThan(bytes);
    expect(session.page.workers()).toHaveLength(0);
  });

  it("that hangs: a new one as soon as somebody uses the session", async () => {
    await open(scene);
    await whole();
    await inWorker(() => {
      setTimeout(() => {
        for (;;) {}
      });
    });
    await session.page.mouse.move(100, 100);
    await agent.until(() => agent.starts.length > 1, "another start", 30_000);
    await streaming();
    await whole();
    await recoveries(1);
  });

  it("that has no memory for the picture: a new one", async () => {
    await open(scene);
    await inWorker(() => {
      const real = Uint32Array;
      Object.assign(self, {
        Uint32Array: class extends real {
          constructor(length: number) {
            if (length > 640 * 480) {
              throw new RangeError("Array buffer allocation failed");
            }
            super(length);
          }
        },
      });
    });
    await session.page.setViewportSize({ width: 800, height: 600 });
    await agent.until(() => agent.starts.length > 1, "another start", 30_000);
    await streaming();
    expect((await stats()).width).toBe(800);
    await shows(quarters(100, 50, 0));
    await recoveries(1);
  });

  it("that gets a message which cannot be read: a new one", async () => {
    await open(scene);
    await session.page.evaluate(() => {
      const worker = (window as unknown as { workers: Worker[] }).workers.at(-1);
      worker?.dispatchEvent(new MessageEvent("messageerror"));
    });
    await agent.until(() => agent.starts.length > 1, "another start", 30_000);
    await streaming();
    await whole();
  });
});

/** What the browser's compositor shows, as rows of R, G, B bytes: a screenshot, not the canvas. */
async function composed(): Promise<{ width: number; rgb: Buffer }> {
  const png = await session.page.screenshot();
  const pixels = await session.page.evaluate(async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
    context.drawImage(bitmap, 0, 0);
    const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    let text = "";
    for (let i = 0; i < data.length; i += 4) {
      text += String.fromCharCode(data[i] ?? 0, data[i + 1] ?? 0, data[i + 2] ?? 0);
    }
    return { width: bitmap.width, base64: btoa(text) };
  }, png.toString("base64"));
  return { width: pixels.width, rgb: Buffer.from(pixels.base64, "base64") };
}

async function composes(points: Point[]): Promise<void> {
  await expect
    .poll(
      async () => {
        const { width, rgb } = await composed();
        return wrong(rgb, width, points);
      },
      { timeout: 30_000 },
    )
    .toEqual([]);
}

describe("canvas", () => {
  /** Plants the loss of the worker's 2D context, as a reset of the graphics card brings it, and perhaps its return. */
  async function lose(restored: boolean): Promise<void> {
    await inWorker(() => {
      const { prototype } = OffscreenCanvasRenderingContext2D;
      const { putImageData } = prototype;
      prototype.putImageData = function (...args: unknown[]) {
        prototype.putImageData = putImageData;
        (self as unknown as { canvas: OffscreenCanvas }).canvas = this.canvas;
        putImageData.apply(this, args as Parameters<typeof putImageData>);
      };
    });
    const acks = agent.acks.length;
    agent.update([
      { kind: "fill", fills: [{ x: 0, y: 470, width: 9, height: 9, r: 1, g: 2, b: 3 }] },
    ]);
    await agent.until(() => agent.acks.length > acks, "the acknowledgement");
    await session.page.workers()[0]?.evaluate((back) => {
      const { canvas } = self as unknown as { canvas: OffscreenCanvas };
      canvas.dispatchEvent(new Event("contextlost", { cancelable: true }));
      canvas.getContext("2d")?.clearRect(0, 0, canvas.width, canvas.height);
      if (back) {
        canvas.dispatchEvent(new Event("contextrestored"));
      }
    }, restored);
  }

  it("that is lost and comes back: painted anew", async () => {
    await open(scene);
    await whole();
    await lose(true);
    await composes([...quarters(100, 50, 0), [10, 10, [epochs, 2, 3]]]);
    await whole();
    await recoveries(1);
    expect(agent.refreshes).toEqual([]);
  });

  it("that is lost with pixels which are nowhere else: a new picture", async () => {
    await open();
    await inWorker(() => {
      VideoFrame.prototype.copyTo = () => Promise.reject(new Error("planted"));
    });
    agent.paint = scene;
    agent.newEpoch();
    await whole();
    expect((await stats()).video.path).toBe("draw");
    expect(agent.refreshes).toEqual([]);
    await lose(true);
    await agent.until(() => agent.refreshes.length > 0, "the refresh");
    expect(agent.refreshes).toEqual([2]);
    await whole();
    await recoveries(1);
  });

  it("that is lost and does not come back: another one in a new worker", async () => {
    await open(scene);
    await lose(false);
    await agent.until(() => agent.starts.length > 1, "another start", 30_000);
    await streaming();
    await whole();
    await composes(quarters(100, 50, 0));
    await recoveries(1);
  });
});

it("says so when nothing helps", async () => {
  await session.page.addInitScript(() => {
    Reflect.deleteProperty(HTMLCanvasElement.prototype, "transferControlToOffscreen");
  });
  await open(scene);
  await whole();
  const lost = () => {
    const canvas = document.querySelector("canvas#screen");
    canvas?.dispatchEvent(new Event("contextlost", { cancelable: true }));
  };
  for (let i = 1; i <= 3; i++) {
    await session.page.evaluate(lost); // and it does not come back
    await agent.until(() => agent.starts.length > i, "another start", 30_000);
    await streaming();
    await whole();
  }
  await session.page.evaluate(lost);
  await session.page.waitForFunction(() => window.penstock.state === "ended", undefined, {
    timeout: 30_000,
  });
  expect(await session.page.locator("h1").textContent()).toBe(
    "This browser cannot draw the session any more",
  );
  expect(await session.page.locator(".card").textContent()).toContain("no-picture");
}, 120_000);

it("survives a crash of the process that draws for all pages", async () => {
  await open(scene);
  await whole();
  const devtools = await (session.page.context().browser() as Browser).newBrowserCDPSession();
  await devtools.send("Browser.crashGpuProcess");
  await composes([...quarters(100, 50, 0), [10, 10, [epochs, 2, 3]]]);
  await whole();
  agent.update([videoSection("h264", 1, 100, 50)]);
  await composes(quarters(100, 50, 1));
});

describe("page", () => {
  const hide = (hidden: boolean) =>
    session.page.evaluate((value) => {
      Object.defineProperty(document, "visibilityState", {
        configurable: true,
        get: () => (value ? "hidden" : "visible"),
      });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);

  it("that is hidden says nothing and hears nothing; the right picture is there when it is back", async () => {
    await open(scene);
    await whole();
    await hide(true);
    await agent.until(() => agent.hidden, "the word that it is hidden");
    const { bytes } = await stats();
    const said = () => [
      agent.received.filter(({ kind }) => kind !== "ping").length,
      agent.acks.length,
    ];
    const before = said();
    const sent = agent.displayBytes;
    for (let n = 1; n < 5; n++) {
      agent.update([videoSection("h264", n, 100, 50)]); // which the agent does not send
    }
    await session.page.waitForTimeout(1500);
    expect(agent.displayBytes).toBe(sent);
    expect(said()).toEqual(before);
    expect((await stats()).bytes.display).toBe(bytes.display);
    await hide(false);
    await agent.until(() => !agent.hidden, "the word that it is seen");
    await whole();
    await recoveries(0);
  });

  it("that is frozen is hidden until it goes on", async () => {
    await open(scene);
    await whole();
    const tell = (name: string) =>
      session.page.evaluate((event) => document.dispatchEvent(new Event(event)), name);
    await tell("freeze");
    await agent.until(() => agent.hidden, "the word that it is hidden");
    await tell("resume");
    await agent.until(() => !agent.hidden, "the word that it is seen");
    await whole();
  });

  it("that was left comes back to the session", async () => {
    await open(scene);
    await whole();
    await session.page.goto("about:blank");
    await session.page.goBack();
    await streaming();
    await whole();
  });
});
