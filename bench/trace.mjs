// What a trace of the browser says about the way from an address to the picture.

export const traceCategories = [
  "devtools.timeline",
  "disabled-by-default-devtools.timeline",
  "disabled-by-default-v8.cpu_profiler",
  "loading",
  "navigation",
  "toplevel",
  "v8",
];

/** Tasks of a page's or a worker's thread that take longer are steps of their own. */
const longMillis = 10;

const scripts = {
  EvaluateScript: "runs a script",
  "v8.evaluateModule": "runs its scripts",
  "v8.compileModule": "compiles a script",
  Layout: "lays the page out",
  FunctionCall: "runs a handler",
};

/** The steps of one opening, from the first request on: [{ at, step }], at in ms. */
export function stepsOf(events) {
  const threads = new Map();
  for (const event of events) {
    if (event.name === "thread_name") {
      threads.set(`${event.pid} ${event.tid}`, event.args.name);
    }
  }
  const urls = new Map();
  const steps = [];
  const add = (ts, step) => steps.push({ ts, step });
  for (const event of [...events].sort((a, b) => a.ts - b.ts)) {
    const { name, args, ts } = event;
    const data = args?.data ?? {};
    const thread = threads.get(`${event.pid} ${event.tid}`);
    const who = /^DedicatedWorker/.test(thread ?? "") ? "the worker" : "the page";
    if (data.requestId !== undefined && data.url !== undefined) {
      urls.set(`${event.pid} ${data.requestId}`, data.url);
    }
    const path = pathOf(data.url ?? urls.get(`${event.pid} ${data.requestId}`));
    if (name === "ResourceSendRequest" && path !== "") {
      add(ts, `asks for ${path}`);
    } else if (name === "ResourceFinish" && path !== "") {
      add(ts, `has ${path}`);
    } else if (name === "WebSocketCreate") {
      add(ts, `${who} opens ${path}`);
    } else if (name === "WebSocketReceiveHandshakeResponse") {
      add(ts, `${who} has its connection`);
    } else if (scripts[name] !== undefined && event.dur > longMillis * 1000) {
      add(ts, `${who} ${scripts[name]}, ${(event.dur / 1000).toFixed(0)} ms`);
    } else if (name === "firstContentfulPaint") {
      add(ts, "the page has painted something");
    }
  }
  const first = steps.find(({ step }) => step.startsWith("asks for"))?.ts ?? 0;
  return steps
    .filter(({ ts }) => ts >= first)
    .map(({ ts, step }) => ({ at: (ts - first) / 1000, step }));
}

/** The path of a URL without what identifies anybody; empty for what is no step. */
function pathOf(url) {
  if (url === undefined || !/^(http|ws)s?:/.test(url)) {
    return "";
  }
  return new URL(url).pathname;
}
