import { type Account, type Enrolment, type PortalApi, PortalError, type SignIn } from "./api.ts";
import { button, element, type Form, form, qrCode } from "./dom.ts";
import { reasonText, texts } from "./texts.ts";

/** What the pages of signing in need from the portal around them. */
export interface Host {
  api: PortalApi;
  /** Shows a page; its heading gets the title. */
  show(title: string, ...content: Node[]): void;
  /** Goes on after a step: asks the server where the visitor stands now. */
  reload(): void;
  /** Back to the applications, or to signing in. */
  leave(): void;
}

/** The page for where a visitor stands who is not signed in. */
export function showSignIn(host: Host, signIn: SignIn, notice = ""): void {
  switch (signIn.step) {
    case "new-password":
      showNewPassword(host, signIn);
      return;
    case "second-factor":
      showCode(host);
      return;
    case "enrol":
      void showEnrol(host, () => host.api.enrol());
      return;
    default:
      showPassword(host, signIn, notice);
  }
}

function page(host: Host, title: string, intro: string, f: Form, ...more: Node[]): void {
  const heading = element("h1", {}, title);
  const card = element("section", { class: "message sign-in" }, heading);
  if (intro !== "") {
    card.append(element("p", { class: "quiet" }, intro));
  }
  card.append(f.node, ...more);
  host.show(title, card);
  f.focus();
}

function describe(field: string): (cause: unknown) => { message: string; field?: string } {
  return (cause) => {
    const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
    const known = ["wrong-password", "wrong-code", "weak-password", "password-expired", "disabled"];
    const message = error.message || reasonText(error.code);
    return known.includes(error.code) ? { message, field } : { message };
  };
}

/** A step that no longer fits, or a sign-in that ended: where the visitor stands is asked again. */
function guarded(host: Host, act: Promise<void>): Promise<void> {
  return act.catch((cause: unknown) => {
    if (cause instanceof PortalError && (cause.status === 401 || cause.code === "wrong-step")) {
      host.reload();
      return;
    }
    throw cause;
  });
}

function showPassword(host: Host, signIn: SignIn, notice: string): void {
  const providers = signIn.providers.map(({ name, url }) =>
    element("li", {}, element("a", { class: "button", href: url }, texts.continueWith(name))),
  );
  const others =
    providers.length > 0
      ? [element("ul", { class: "providers", "aria-label": texts.otherWays }, ...providers)]
      : [];
  if (!signIn.password) {
    const heading = element("h1", { tabindex: "-1" }, texts.signIn);
    host.show(texts.signIn, element("section", { class: "message sign-in" }, heading, ...others));
    heading.focus();
    return;
  }
  const f = form(
    [
      { name: "userName", label: texts.userName, type: "email", autocomplete: "username" },
      {
        name: "password",
        label: texts.password,
        type: "password",
        autocomplete: "current-password",
      },
    ],
    texts.signIn,
    async ({ userName, password }) => {
      await host.api.signIn(userName ?? "", password ?? "");
      host.reload();
    },
    describe("password"),
  );
  page(
    host,
    texts.signIn,
    notice,
    f,
    button(texts.forgot, "plain", () => showForgot(host, signIn)),
    ...others,
  );
}

function repeated(values: Record<string, string>): string {
  if (values["password"] !== values["again"]) {
    throw new PortalError(0, "weak-password", texts.passwordsDiffer);
  }
  return values["password"] ?? "";
}

const newPasswordFields = [
  {
    name: "password",
    label: texts.newPassword,
    hint: texts.passwordRule,
    type: "password",
    autocomplete: "new-password",
  },
  { name: "again", label: texts.repeatPassword, type: "password", autocomplete: "new-password" },
] as const;

function showNewPassword(host: Host, signIn: SignIn): void {
  const f = form(
    [...newPasswordFields],
    texts.savePassword,
    async (values) => {
      const password = repeated(values);
      await guarded(host, host.api.newPassword(password).then(host.reload));
    },
    describe("password"),
  );
  // Password managers learn from it whose password it is.
  f.node.prepend(
    element("input", {
      class: "hidden",
      type: "email",
      autocomplete: "username",
      value: signIn.userId,
      readonly: "",
      tabindex: "-1",
      "aria-hidden": "true",
    }),
  );
  page(host, texts.choosePassword, texts.choosePasswordBody, f);
}

function showCode(host: Host): void {
  const f = form(
    [
      {
        name: "code",
        label: texts.code,
        hint: texts.codeHint,
        autocomplete: "one-time-code",
      },
    ],
    texts.goOn,
    async ({ code }) => {
      await guarded(host, host.api.code(code ?? "").then(host.reload));
    },
    describe("code"),
  );
  page(host, texts.secondFactor, texts.secondFactorBody, f, startOver(host));
}

function startOver(host: Host): HTMLElement {
  return button(texts.startOver, "plain", () => {
    void host.api.signOut(false).then(host.reload, host.reload);
  });
}

async function showEnrol(host: Host, begin: () => Promise<Enrolment>): Promise<void> {
  let enrolment: Enrolment;
  try {
    enrolment = await begin();
  } catch {
    host.reload();
    return;
  }
  const f = form(
    [{ name: "code", label: texts.code, autocomplete: "one-time-code", inputmode: "numeric" }],
    texts.goOn,
    async ({ code }) => {
      await guarded(
        host,
        host.api.confirmFactor(code ?? "").then((codes) => showRecovery(host, codes)),
      );
    },
    describe("code"),
  );
  const secret = (enrolment.secret.match(/.{1,4}/g) ?? []).join(" ");
  f.node.prepend(
    element("div", { class: "enrol" }, qrCode(enrolment.qr, texts.qrLabel)),
    element("p", { class: "quiet" }, texts.enrolSecret, " ", element("code", {}, secret)),
  );
  page(host, texts.addFactor, texts.enrolBody, f);
}

function showRecovery(host: Host, codes: string[]): void {
  const heading = element("h1", { tabindex: "-1" }, texts.recovery);
  const list = codes.map((code) => element("li", {}, element("code", {}, code)));
  host.show(
    texts.recovery,
    element(
      "section",
      { class: "message sign-in" },
      heading,
      element("p", { class: "quiet" }, texts.recoveryBody),
      element("ul", { class: "codes" }, ...list),
      element("div", { class: "actions" }, button(texts.recoveryKept, "primary", host.reload)),
    ),
  );
  heading.focus();
}

function showForgot(host: Host, signIn: SignIn): void {
  const f = form(
    [{ name: "userName", label: texts.userName, type: "email", autocomplete: "username" }],
    texts.sendCode,
    async ({ userName }) => {
      await host.api.requestReset(userName ?? "");
      showReset(host, signIn, userName ?? "");
    },
    describe("userName"),
  );
  page(host, texts.forgotTitle, texts.forgotBody, f, button(texts.startOver, "plain", host.reload));
}

function showReset(host: Host, signIn: SignIn, userName: string): void {
  const f = form(
    [
      {
        name: "userName",
        label: texts.userName,
        type: "email",
        autocomplete: "username",
        value: userName,
      },
      { name: "code", label: texts.resetCode, autocomplete: "one-time-code" },
      ...newPasswordFields,
    ],
    texts.savePassword,
    async (values) => {
      const password = repeated(values);
      await host.api.reset(values["userName"] ?? "", values["code"] ?? "", password);
      showPassword(host, signIn, texts.passwordSaved);
    },
    (cause) => {
      const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
      return describe(error.code === "weak-password" ? "password" : "code")(cause);
    },
  );
  page(host, texts.resetTitle, texts.resetBody, f, button(texts.startOver, "plain", host.reload));
}

/** The account of a user of the pool: password, second factor, sign-ins. */
export function showAccount(host: Host, account: Account): void {
  const heading = element("h1", { tabindex: "-1" }, texts.account);
  const password = form(
    [
      {
        name: "old",
        label: texts.oldPassword,
        type: "password",
        autocomplete: "current-password",
      },
      ...newPasswordFields,
    ],
    texts.savePassword,
    async (values) => {
      const next = repeated(values);
      await guarded(
        host,
        host.api.changePassword(values["old"] ?? "", next).then(() => {
          password.node.replaceWith(element("p", { role: "status" }, texts.passwordSaved));
        }),
      );
    },
    (cause) => {
      const error = cause instanceof PortalError ? cause : new PortalError(0, "internal", "");
      return describe(error.code === "wrong-password" ? "old" : "password")(cause);
    },
  );
  password.node.setAttribute("aria-labelledby", "change-password");
  const content: Node[] = [
    heading,
    element("h2", { id: "change-password" }, texts.changePassword),
    password.node,
    element("h2", {}, texts.secondFactor),
    element(
      "p",
      {},
      account.secondFactor ? texts.factorOn(account.recoveryCodes) : texts.factorOff,
    ),
  ];
  const actions = element("div", { class: "actions" });
  if (account.factorAllowed) {
    actions.append(
      button(account.secondFactor ? texts.replaceFactor : texts.addFactor, "", () =>
        showProve(host, texts.addFactor, (typed) =>
          showEnrolAfter(host, host.api.addFactor(typed)),
        ),
      ),
    );
  }
  if (account.secondFactor && account.factorRemovable) {
    actions.append(
      button(texts.removeFactor, "", () =>
        showProve(host, texts.removeFactor, (typed) =>
          host.api.removeFactor(typed).then(host.reload),
        ),
      ),
    );
  }
  content.push(
    actions,
    element("h2", {}, texts.everywhere),
    element("p", {}, texts.everywhereBody),
    element(
      "div",
      { class: "actions" },
      button(texts.signOutEverywhere, "", () => {
        void host.api.signOut(true).then(host.reload, host.reload);
      }),
    ),
    button(texts.back, "plain", host.leave),
  );
  host.show(texts.account, element("section", { class: "message sign-in" }, ...content));
  heading.focus();
}

async function showEnrolAfter(host: Host, begun: Promise<Enrolment>): Promise<void> {
  const enrolment = await begun;
  await showEnrol(host, () => Promise.resolve(enrolment));
}

/** Asks for the password again before something that a stolen sign-in must not do. */
function showProve(host: Host, title: string, act: (password: string) => Promise<void>): void {
  const f = form(
    [
      {
        name: "password",
        label: texts.password,
        type: "password",
        autocomplete: "current-password",
      },
    ],
    texts.goOn,
    ({ password }) => guarded(host, act(password ?? "")),
    describe("password"),
  );
  page(host, title, texts.proveBody, f, button(texts.back, "plain", host.leave));
}
