// Tells what a viewer's canvas shows and since when. The same text runs in the page of each viewer and, where the viewer draws in
// a worker, in that worker. After each call that paints, pixels are read back (which makes the browser finish the painting) and
// a change is announced with its time.
(() => {
  if (globalThis.benchProbe !== undefined) {
    return;
  }
  const inPage = typeof document !== "undefined";
  const announce = new BroadcastChannel("bench-probe");
  // The pixels that must all have the new colour before the change counts; the last one first, for it is painted last.
  let points = [[100, 100]];
  let last = -1;
  let enabled = true;

  const colourAt = (context, [x, y]) => {
    const [r, g, b] = getImageData.call(context, x, y, 1, 1).data;
    return (r << 16) | (g << 8) | b;
  };
  // The contexts that paint, the first ones first: a viewer's own trials on canvases aside come later.
  const painters = new Set();
  const look = (context) => {
    const canvas = context.canvas;
    painters.add(context);
    const shown = inPage ? canvas.isConnected : true;
    if (!enabled || !shown || points.some(([x, y]) => canvas.width <= x || canvas.height <= y)) {
      return;
    }
    let colour;
    for (let i = points.length - 1; i >= 0; i--) {
      const found = colourAt(context, points[i]);
      colour ??= found;
      if (colour === last || found !== colour) {
        return;
      }
    }
    last = colour;
    const change = { colour, time: performance.timeOrigin + performance.now() };
    announce.postMessage(change);
    globalThis.benchProbe.onchange?.(change); // a channel does not hear itself
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
  const set = (data) => {
    enabled = data.enabled;
    points = data.points;
    last = data.last;
  };

  const now = () => performance.timeOrigin + performance.now();

  /** Milliseconds by which this page's or worker's clock, which an adjustment of the system's does not reach, is behind the system's. */
  const clock = () => {
    const before = Date.now();
    let at = before;
    while (at === before) {
      at = Date.now();
    }
    return at - now();
  };

  /**
   * Reads the cells at the places in every animation frame, from the very context that paints a canvas of that size, until the
   * function that it returns is called, which gives { clock, samples: [[time, colours of the cells' centres…]] }. Undefined where
   * there is no such context.
   */
  const watch = ({ size, places, cell, columns, lines }) => {
    const width = cell * columns;
    const height = cell * lines;
    const painter = () => {
      for (const context of painters) {
        const { canvas } = context;
        if (
          canvas.width === size[0] &&
          canvas.height === size[1] &&
          (!inPage || canvas.isConnected)
        ) {
          return context;
        }
      }
      return undefined;
    };
    if (painter() === undefined) {
      return undefined;
    }
    const offset = clock();
    const samples = [];
    let running = true;
    const tick = () => {
      if (!running) {
        return;
      }
      const time = now();
      const context = painter();
      samples.push([
        time,
        ...places.map(([left, top]) => {
          // Two bits a cell: black is 0, white 1, anything between 2.
          const { data } = getImageData.call(context, left, top, width, height);
          let bits = "";
          for (let bit = 0; bit < columns * lines; bit++) {
            const x = Math.floor(((bit % columns) + 0.5) * cell);
            const y = Math.floor((Math.floor(bit / columns) + 0.5) * cell);
            const at = (y * width + x) * 4;
            const light = (data[at] + data[at + 1] + data[at + 2]) / 3;
            bits = `${light > 170 ? 1 : light < 85 ? 0 : 2}${bits}`;
          }
          return bits;
        }),
      ]);
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    return () => {
      running = false;
      return { clock: offset, samples };
    };
  };

  if (!inPage) {
    let unwatch;
    announce.onmessage = ({ data }) => {
      if (data.watch !== undefined) {
        unwatch = watch(data.watch);
        announce.postMessage({ watching: unwatch !== undefined });
      } else if (data.unwatch) {
        announce.postMessage({ watched: unwatch?.() });
      } else {
        set(data);
      }
    };
    return;
  }

  // In the page: one press at a time, from its event to the change.
  const listeners = new Set();
  const tell = (change) => {
    for (const listener of [...listeners]) {
      listener(change);
    }
  };
  announce.onmessage = ({ data }) => tell(data);
  globalThis.benchProbe.onchange = tell;

  /** The canvas that shows the screen: the largest one of the page that matches. */
  const screen = (selector) => {
    let largest = null;
    for (const canvas of document.querySelectorAll(selector)) {
      if (largest === null || canvas.width * canvas.height > largest.width * largest.height) {
        largest = canvas;
      }
    }
    return largest;
  };
  const copyOf = (width, height) => {
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return canvas.getContext("2d", { willReadFrequently: true });
  };
  const scratch = copyOf(1, 1);
  const read = (canvas, [x, y]) => {
    plainDrawImage.call(scratch, canvas, x, y, 1, 1, 0, 0, 1, 1);
    return colourAt(scratch, [0, 0]);
  };

  /** The colour that the canvas element has now at all points, or undefined. */
  globalThis.benchProbe.look = (selector) => {
    const canvas = screen(selector);
    if (canvas === null || points.some(([x, y]) => canvas.width <= x || canvas.height <= y)) {
      return undefined;
    }
    const colour = read(canvas, points[0]);
    return points.every((point) => read(canvas, point) === colour) ? colour : undefined;
  };

  // Reading back costs time: off while frames are watched instead. What the canvas shows when it is turned on is no change.
  globalThis.benchProbe.enable = (enabled, points, selector) => {
    set({ enabled, points, last: -1 });
    const last = enabled ? globalThis.benchProbe.look(selector) : -1;
    set({ enabled, points, last });
    announce.postMessage({ enabled, points, last });
  };

  // Arms the probe for the next press; benchAnswer, given by the driver, is told the outcome.
  globalThis.benchProbe.drawn = (event) => {
    addEventListener(
      event,
      (pressed) => {
        const start = performance.timeOrigin + pressed.timeStamp;
        const changed = (change) => {
          if (change.colour !== undefined) {
            listeners.delete(changed);
            globalThis.benchAnswer({ milliseconds: change.time - start, colour: change.colour });
          }
        };
        listeners.add(changed);
      },
      { capture: true, once: true },
    );
  };

  globalThis.benchProbe.frame = (event, selector) => {
    const before = globalThis.benchProbe.look(selector);
    addEventListener(
      event,
      (pressed) => {
        const tick = () => {
          const colour = globalThis.benchProbe.look(selector);
          if (colour === before || colour === undefined) {
            requestAnimationFrame(tick);
          } else {
            globalThis.benchAnswer({ milliseconds: performance.now() - pressed.timeStamp, colour });
          }
        };
        requestAnimationFrame(tick);
      },
      { capture: true, once: true },
    );
  };

  /** Reports the first animation frame in which the canvas has each colour at its place. */
  globalThis.benchProbe.expect = ({ selector, pixels }) => {
    const tick = () => {
      const canvas = screen(selector);
      const right =
        canvas !== null &&
        pixels.every(
          ({ x, y, colour }) =>
            canvas.width > x && canvas.height > y && read(canvas, [x, y]) === colour,
        );
      if (right) {
        globalThis.benchAnswer({ right: now() });
      } else {
        requestAnimationFrame(tick);
      }
    };
    requestAnimationFrame(tick);
  };

  /** What a worker says next that has this member; fails after ten seconds. */
  const heard = (member) =>
    new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`no worker said ${member}`)), 10_000);
      const listener = (message) => {
        if (message[member] !== undefined) {
          clearTimeout(late);
          listeners.delete(listener);
          resolve(message[member]);
        }
      };
      listeners.add(listener);
    });

  // Frames are watched where they are painted: in the page, or in the worker that does it.
  let unwatch;
  globalThis.benchProbe.watch = async (what) => {
    unwatch = watch(what);
    if (unwatch !== undefined) {
      return;
    }
    const watching = heard("watching");
    announce.postMessage({ watch: what });
    if (!(await watching)) {
      throw new Error(`nobody paints a canvas of ${what.size.join("×")}`);
    }
    unwatch = () => {
      const watched = heard("watched");
      announce.postMessage({ unwatch: true });
      return watched;
    };
  };
  globalThis.benchProbe.unwatch = () => unwatch();

  /** The picture of the canvas, raw as base64, four bytes a pixel. */
  globalThis.benchProbe.picture = (selector, width, height) => {
    const copy = copyOf(width, height);
    plainDrawImage.call(copy, screen(selector), 0, 0, width, height, 0, 0, width, height);
    const { data } = getImageData.call(copy, 0, 0, width, height);
    let text = "";
    for (let i = 0; i < data.length; i += 0x8000) {
      text += String.fromCharCode(...data.subarray(i, i + 0x8000));
    }
    return btoa(text);
  };

  if (globalThis.benchExpect !== undefined) {
    globalThis.benchProbe.expect(globalThis.benchExpect);
  }
})();
