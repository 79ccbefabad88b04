import {
  type Application,
  httpApi,
  type Me,
  PortalError,
  type Stack,
  type WindowSize,
} from "./api.ts";
import { button, element } from "./dom.ts";
import { launch } from "./launch.ts";
import { type Host, showAccount, showSignIn } from "./sign_in.ts";
import { reasonText, signInErrorText, texts, urlErrorText } from "./texts.ts";

const longMillis = 6000;
const root = document.querySelector<HTMLElement>("#portal") as HTMLElement;
const api = httpApi;
let launching: AbortController | undefined;

const urlError = new URLSearchParams(location.search).get("error");
if (urlError === null) {
  void load();
} else {
  showUrlError(urlError);
}
// Coming back with the browser's own button may show the page as it was left: opening a session.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    launching?.abort();
    void load(false);
  }
});

/** Where the visitor stands now decides the page. */
async function load(mayLaunch = true): Promise<void> {
  let me: Me;
  try {
    me = await api.me();
  } catch (cause) {
    showNotSignedIn(cause);
    return;
  }
  const [only] = me.stacks;
  document.title =
    only !== undefined && me.stacks.length === 1 ? only.displayName : texts.applications;
  // A reload or the way back must not start the application again.
  const fresh = mayLaunch && performance.getEntriesByType("navigation").every(isFresh);
  if (me.launch !== "" && only !== undefined && fresh) {
    const named = only.applications.find(({ id }) => id === me.launch);
    void open(me, only, named ?? unknown(me.launch));
  } else {
    showApplications(me);
  }
}

function isFresh(entry: PerformanceEntry): boolean {
  return (entry as PerformanceNavigationTiming).type === "navigate";
}

function unknown(id: string): Application {
  return { id, displayName: id || texts.unknownApplication, description: "", iconUrl: "" };
}

function showApplications(me: Me): void {
  const [only, ...more] = me.stacks;
  if (only !== undefined && more.length === 0) {
    show(
      me,
      element("h1", {}, only.displayName),
      element("p", { class: "quiet" }, only.description || texts.choose),
      ...catalogue(me, only, 0),
    );
    return;
  }
  const sections = me.stacks.map((stack, i) => {
    const heading = element("h2", { id: `stack-${i}` }, stack.displayName);
    const section = element("section", { "aria-labelledby": heading.id }, heading);
    if (stack.description !== "") {
      section.append(element("p", { class: "quiet" }, stack.description));
    }
    section.append(...catalogue(me, stack, i));
    return section;
  });
  show(
    me,
    element("h1", {}, texts.applications),
    ...(sections.length > 0
      ? [element("p", { class: "quiet" }, texts.choose), ...sections]
      : [element("p", { class: "empty" }, texts.none)]),
  );
}

/** The applications of one stack, and why they cannot be opened when that is so. */
function catalogue(me: Me, stack: Stack, index: number): Node[] {
  const content: Node[] = [];
  if (stack.unavailable !== "") {
    content.push(element("p", { class: "notice" }, `${texts.unavailable} ${stack.unavailable}`));
  }
  if (stack.applications.length === 0) {
    content.push(element("p", { class: "empty" }, texts.none));
    return content;
  }
  const cards = stack.applications.map((application, i) => {
    // The button covers the card but is called by the application's name; the description only adds to it.
    const name = element("strong", {}, application.displayName);
    const start = element("button", { type: "button", class: "app" }, name);
    start.addEventListener("click", () => void open(me, stack, application));
    const words = element("div", { class: "words" }, start);
    if (application.description !== "") {
      const about = element(
        "span",
        { class: "quiet", id: `about-${index}-${i}` },
        application.description,
      );
      words.append(about);
      start.setAttribute("aria-describedby", about.id);
    }
    return element("li", { class: "card" }, picture(application), words);
  });
  const label = me.stacks.length > 1 ? texts.applicationsOf(stack.displayName) : texts.applications;
  content.push(element("ul", { class: "apps", "aria-label": label }, ...cards));
  return content;
}

function picture(application: Application): HTMLElement {
  const letter = element(
    "span",
    { class: "icon letter", "aria-hidden": "true" },
    initial(application.displayName),
  );
  if (application.iconUrl === "") {
    return letter;
  }
  const image = element("img", {
    class: "icon",
    src: application.iconUrl,
    alt: "",
    width: "48",
    height: "48",
  });
  image.addEventListener("error", () => image.replaceWith(letter), { once: true });
  return image;
}

function initial(name: string): string {
  return [...name][0]?.toUpperCase() ?? "?";
}

async function open(me: Me, stack: Stack, application: Application): Promise<void> {
  launching?.abort();
  const mine = new AbortController();
  launching = mine;
  const hint = element("p", { class: "quiet" }, texts.openingHint);
  const cancel = element("button", { type: "button" }, texts.cancel);
  cancel.addEventListener("click", () => {
    mine.abort();
    showApplications(me);
  });
  const heading = element("h1", { tabindex: "-1" }, texts.opening(application.displayName));
  show(
    me,
    element(
      "section",
      { class: "center", "aria-busy": "true" },
      element("div", { class: "spinner", "aria-hidden": "true" }, picture(application)),
      element("div", { role: "status" }, heading, hint),
      cancel,
    ),
  );
  heading.focus();
  const long = setTimeout(() => {
    hint.textContent = texts.openingLong;
  }, longMillis);
  try {
    const choice = { stackName: stack.name, applicationId: application.id, window: windowSize() };
    const viewerUrl = await launch(api, choice, mine.signal);
    location.replace(viewerUrl);
  } catch (cause) {
    if (mine.signal.aborted) {
      return;
    }
    if (cause instanceof PortalError && cause.status === 401) {
      void load(false);
    } else {
      showFailed(me, stack, application, cause);
    }
  } finally {
    clearTimeout(long);
  }
}

/** What the viewer, which fills the window that this page fills, will ask for. */
function windowSize(): WindowSize {
  const pixels = (css: number) => Math.min(16384, Math.round(css * devicePixelRatio));
  return {
    width: pixels(innerWidth),
    height: pixels(innerHeight),
    scale: Math.min(1000, Math.round(devicePixelRatio * 100)),
  };
}

function showFailed(me: Me, stack: Stack, application: Application, cause: unknown): void {
  const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
  const retry = element("button", { type: "button", class: "primary" }, texts.retry);
  retry.addEventListener("click", () => void open(me, stack, application));
  const back = element("button", { type: "button" }, texts.back);
  back.addEventListener("click", () => showApplications(me));
  showMessage(
    me,
    texts.failedTitle(application.displayName),
    error.message || reasonText(error.code),
    error.code,
    [retry, back],
  );
}

/** The streaming URL, or the answer of an identity provider, was refused. Only the code is taken from the address: anybody can write one. */
function showUrlError(code: string): void {
  const refused = signInErrorText(code);
  if (refused !== undefined) {
    const again = button(texts.signInAgain, "primary", () => {
      history.replaceState(null, "", "/");
      void load();
    });
    showMessage(undefined, texts.signInFailed, refused, code, [again]);
    return;
  }
  const { title, body } = urlErrorText(code);
  showMessage(undefined, title, body, /^[a-z-]{1,40}$/.test(code) ? code : "url-invalid", []);
}

function showNotSignedIn(cause: unknown): void {
  const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
  const { signIn } = error;
  if (signIn !== undefined && (signIn.password || signIn.providers.length > 0)) {
    showSignIn(host, signIn);
    return;
  }
  if (error.status === 401 || error.status === 403) {
    showMessage(undefined, texts.needUrlTitle, error.message || texts.needUrlBody, error.code, []);
    if (error.message !== "") {
      root.querySelector(".message p")?.after(element("p", { class: "quiet" }, texts.needUrlBody));
    }
    return;
  }
  const retry = element("button", { type: "button", class: "primary" }, texts.retry);
  retry.addEventListener("click", () => location.reload());
  const body =
    error.message ||
    (error.code === "unreachable" ? texts.unreachableBody : reasonText(error.code));
  showMessage(undefined, texts.unreachableTitle, body, error.code, [retry]);
}

function showMessage(
  me: Me | undefined,
  title: string,
  body: string,
  code: string,
  actions: HTMLElement[],
): void {
  const heading = element("h1", { tabindex: "-1" }, title);
  const card = element("section", { class: "message" }, heading, element("p", {}, body));
  if (actions.length > 0) {
    card.append(element("div", { class: "actions" }, ...actions));
  }
  card.append(
    element("p", { class: "quiet small" }, `${texts.codeLabel}: `, element("code", {}, code)),
  );
  document.title = title;
  show(me, card);
  heading.focus();
}

function show(me: Me | undefined, ...content: Node[]): void {
  const account = element("div", { class: "account" });
  if (me !== undefined) {
    if (me.userId !== "") {
      account.append(element("span", { class: "quiet user" }, texts.signedInAs(me.userId)));
    }
    for (const { feedbackUrl } of me.stacks.filter((stack) => stack.feedbackUrl !== "")) {
      account.append(
        element("a", { href: feedbackUrl, target: "_blank", rel: "noreferrer" }, texts.feedback),
      );
    }
    if (me.authType === "USERPOOL") {
      account.append(button(texts.account, "plain", () => void openAccount()));
    }
    const signOut = element("button", { type: "button", class: "plain" }, texts.signOut);
    signOut.addEventListener("click", () => void leave(me));
    account.append(signOut);
  }
  const brand = element(
    "div",
    { class: "brand" },
    element("img", {
      src: new URL("./icon.svg", import.meta.url).href,
      alt: "",
      width: "28",
      height: "28",
    }),
    element("span", {}, texts.product),
  );
  root.replaceChildren(element("header", {}, brand, account), element("main", {}, ...content));
}

const host: Host = {
  api,
  show(title, ...content) {
    document.title = title;
    show(undefined, ...content);
  },
  reload: () => void load(),
  leave: () => void load(false),
};

async function openAccount(): Promise<void> {
  try {
    showAccount(host, await api.account());
  } catch (cause) {
    showNotSignedIn(cause);
  }
}

async function leave(me: Me): Promise<void> {
  launching?.abort();
  try {
    await api.signOut(false);
  } catch (cause) {
    if (!(cause instanceof PortalError && cause.status === 401)) {
      showNotSignedIn(cause);
      return;
    }
  }
  const redirect = me.stacks.find((stack) => stack.redirectUrl !== "")?.redirectUrl;
  if (redirect !== undefined) {
    location.replace(redirect);
  } else if (me.authType === "API") {
    showMessage(undefined, texts.signedOut, texts.signedOutBody, "signed-out", []);
  } else {
    const again = button(texts.signInAgain, "primary", () => void load());
    showMessage(undefined, texts.signedOut, texts.signedOutPool, "signed-out", [again]);
  }
}
