// The page's first script. It starts what takes its time elsewhere (the display worker, the decoder, the control connection) before
// the rest of the page's code is read and run, which waits for the document and its style sheet.
import { connectEarly, type EarlySocket } from "../transport/early.ts";
import { loadDecoder, newDisplayWorker, workersDraw } from "../video/assets.ts";
import { type Fragment, parseFragment } from "./fragment.ts";

/** What the page takes over. */
export interface Boot {
  readonly fragment: Fragment;
  readonly decoder: Promise<WebAssembly.Module>;
  /** The connection of the fragment's ticket. */
  readonly socket: EarlySocket | undefined;
  /** The first worker; undefined once it was taken, or when it could not be loaded. */
  takeWorker(): Worker | undefined;
}

function start(): Boot {
  const fragment = parseFragment(location.hash);
  if (location.hash !== "") {
    // The ticket must not stay in the address bar, the history or a bookmark.
    history.replaceState(history.state, "", location.pathname + location.search);
  }
  const socket =
    fragment.ticket === undefined
      ? undefined
      : connectEarly(new URL("/v1/channel/control", location.origin), fragment.ticket);
  let worker: Worker | undefined;
  if (workersDraw()) {
    worker = newDisplayWorker();
    worker.onerror = () => {
      worker = undefined; // the viewer starts one itself, and hears why that fails
    };
  }
  const decoder = loadDecoder();
  decoder.catch(() => {}); // the viewer reports it
  return {
    fragment,
    decoder,
    socket,
    takeWorker() {
      const first = worker;
      worker = undefined;
      if (first !== undefined) {
        first.onerror = null;
      }
      return first;
    },
  };
}

export const boot = start();
