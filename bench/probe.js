// Tells when a pixel of the picture got a new colour in the canvas that a viewer draws on. The same text runs in the page of
// each viewer and, where the viewer draws in a worker, in that worker. After each call that paints, the pixel is read back
// (which makes the browser finish the painting) and a change is announced with its time.
(() => {
  if (globalThis.benchProbe !== undefined) {
    return;
  }
  const at = 100; // inside the square that flipper repaints
  const inPage = typeof document !== "undefined";
  const announce = new BroadcastChannel("bench-probe");
  let last = -1;
  let enabled = true;

  const look = (context) => {
    const canvas = context.canvas;
    const shown = inPage ? canvas.isConnected : true;
    if (!enabled || !shown || canvas.width <= at || canvas.height <= at) {
      return;
    }
    const [r, g, b] = getImageData.call(context, at, at, 1, 1).data;
    const colour = (r << 16) | (g << 8) | b;
    if (colour !== last) {
      last = colour;
      const change = { colour, time: performance.timeOrigin + performance.now() };
      announce.postMessage(change);
      globalThis.benchProbe.onchange?.(change); // a channel does not hear itself
    }
  };

  const prototype = (inPage ? CanvasRenderingContext2D : OffscreenCanvasRenderingContext2D)
    .prototype;
  const getImageData = prototype.getImageData;
  const plainDrawImage = prototype.drawImage;
  globalThis.benchProbe = { onchange: undefined };
  for (const method of ["putImageData", "drawImage", "fillRect"]) {
    const paint = prototype[method];
    prototype[method] = function (...args) {
      const result = paint.apply(this, args);
      look(this);
      return result;
    };
  }
  if (!inPage) {
    announce.onmessage = ({ data }) => {
      enabled = data.enable;
    };
    return;
  }

  // In the page: one key at a time, from its event to the change.
  const listeners = new Set();
  const changes = []; // the first ones, for what happens before anybody asks
  globalThis.benchProbe.changes = changes;
  const tell = (change) => {
    if (changes.length < 1000) {
      changes.push(change);
    }
    for (const listener of listeners) {
      listener(change);
    }
  };
  announce.onmessage = ({ data }) => tell(data);
  globalThis.benchProbe.onchange = tell;

  const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const read = (canvas) => {
    plainDrawImage.call(scratch, canvas, at, at, 1, 1, 0, 0, 1, 1);
    const [r, g, b] = getImageData.call(scratch, 0, 0, 1, 1).data;
    return (r << 16) | (g << 8) | b;
  };

  /** The colour that the canvas element has now. */
  globalThis.benchProbe.look = (selector) => {
    const canvas = document.querySelector(selector);
    return canvas === null || canvas.width <= at || canvas.height <= at ? undefined : read(canvas);
  };

  // Reading back costs time: off while frames are watched instead.
  globalThis.benchProbe.enable = (on) => {
    enabled = on;
    announce.postMessage({ enable: on });
  };

  // Arms the probe for the next key; benchAnswer, given by the driver, is told the outcome.
  globalThis.benchProbe.key = () => {
    addEventListener(
      "keydown",
      (event) => {
        const start = performance.timeOrigin + event.timeStamp;
        const heard = (change) => {
          listeners.delete(heard);
          globalThis.benchAnswer({ milliseconds: change.time - start, colour: change.colour });
        };
        listeners.add(heard);
      },
      { capture: true, once: true },
    );
  };

  globalThis.benchProbe.frame = (selector) => {
    const canvas = document.querySelector(selector);
    const before = read(canvas);
    addEventListener(
      "keydown",
      (event) => {
        const tick = () => {
          const colour = read(canvas);
          if (colour === before) {
            requestAnimationFrame(tick);
          } else {
            globalThis.benchAnswer({ milliseconds: performance.now() - event.timeStamp, colour });
          }
        };
        requestAnimationFrame(tick);
      },
      { capture: true, once: true },
    );
  };
})();
