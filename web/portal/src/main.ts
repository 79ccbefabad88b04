import { type Application, httpApi, type Me, PortalError } from "./api.ts";
import { launch } from "./launch.ts";
import { reasonText, texts, urlErrorText } from "./texts.ts";

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

async function load(mayLaunch = true): Promise<void> {
  let me: Me;
  try {
    me = await api.me();
  } catch (cause) {
    showNotSignedIn(cause);
    return;
  }
  document.title = me.stackDisplayName || me.stackName || texts.product;
  // A reload or the way back must not start the application again.
  const fresh = mayLaunch && performance.getEntriesByType("navigation").every(isFresh);
  if (me.launch !== "" && fresh) {
    void open(me, me.applications.find(({ id }) => id === me.launch) ?? unknown(me.launch));
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
  const cards = me.applications.map((application, i) => {
    // The button covers the card but is called by the application's name; the description only adds to it.
    const name = element("strong", {}, application.displayName);
    const button = element("button", { type: "button", class: "app" }, name);
    button.addEventListener("click", () => void open(me, application));
    const words = element("div", { class: "words" }, button);
    if (application.description !== "") {
      const about = element("span", { class: "quiet", id: `about-${i}` }, application.description);
      words.append(about);
      button.setAttribute("aria-describedby", about.id);
    }
    return element("li", { class: "card" }, picture(application), words);
  });
  show(
    me,
    element("h1", {}, me.stackDisplayName || me.stackName || texts.applications),
    element("p", { class: "quiet" }, me.description || texts.choose),
    cards.length > 0
      ? element("ul", { class: "apps", "aria-label": texts.applications }, ...cards)
      : element("p", { class: "empty" }, texts.none),
  );
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

async function open(me: Me, application: Application): Promise<void> {
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
    const viewerUrl = await launch(api, application.id, mine.signal);
    location.replace(viewerUrl);
  } catch (cause) {
    if (mine.signal.aborted) {
      return;
    }
    if (cause instanceof PortalError && cause.status === 401) {
      showNotSignedIn(cause);
    } else {
      showFailed(me, application, cause);
    }
  } finally {
    clearTimeout(long);
  }
}

function showFailed(me: Me, application: Application, cause: unknown): void {
  const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
  const retry = element("button", { type: "button", class: "primary" }, texts.retry);
  retry.addEventListener("click", () => void open(me, application));
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

/** The streaming URL was refused. Only the code is taken from the address: anybody can write one. */
function showUrlError(code: string): void {
  const { title, body } = urlErrorText(code);
  showMessage(undefined, title, body, /^[a-z-]{1,40}$/.test(code) ? code : "url-invalid", []);
}

function showNotSignedIn(cause: unknown): void {
  const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
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
    if (me.feedbackUrl !== "") {
      account.append(
        element("a", { href: me.feedbackUrl, target: "_blank", rel: "noreferrer" }, texts.feedback),
      );
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

async function leave(me: Me): Promise<void> {
  launching?.abort();
  try {
    await api.signOut();
  } catch (cause) {
    if (!(cause instanceof PortalError && cause.status === 401)) {
      showNotSignedIn(cause);
      return;
    }
  }
  if (me.redirectUrl !== "") {
    location.replace(me.redirectUrl);
  } else {
    showMessage(undefined, texts.signedOut, texts.signedOutBody, "signed-out", []);
  }
}

function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}
