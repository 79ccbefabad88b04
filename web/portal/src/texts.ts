/** Every text of the portal, in one place. */
export const texts = {
  product: "Penstock",
  loading: "Loading your applications…",
  applications: "Applications",
  choose: "Choose what to open.",
  none: "No application is assigned to you here. Ask your administrator.",
  signedInAs: (user: string) => `Signed in as ${user}`,
  signOut: "Sign out",
  signedOut: "You are signed out",
  signedOutBody: "Use your streaming link to come back.",
  feedback: "Send feedback",
  leave: "Leave",
  opening: (name: string) => `Opening ${name}…`,
  openingHint: "Your session is being prepared. This takes a moment.",
  openingLong: "Still working: a machine is being started for you.",
  cancel: "Cancel",
  retry: "Try again",
  back: "Back to the applications",
  codeLabel: "Code",
  needUrlTitle: "A streaming link is needed",
  needUrlBody:
    "This portal opens from a streaming link, which your administrator or your company's own site gives you. Links work for a limited time: if yours stopped working, ask for a new one.",
  unreachableTitle: "The portal does not answer",
  unreachableBody: "Check your network, then try again.",
  failedTitle: (name: string) => `${name} could not be opened`,
  unknownApplication: "The application",
  applicationsOf: (stack: string) => `Applications of ${stack}`,
  unavailable: "Nothing can be opened here at the moment.",
  signIn: "Sign in",
  signInAgain: "Sign in again",
  signInFailed: "You could not be signed in",
  signedOutPool: "Your applications go on until their session ends.",
  userName: "E-mail address",
  password: "Password",
  forgot: "Forgot your password?",
  otherWays: "Other ways to sign in",
  continueWith: (provider: string) => `Continue with ${provider}`,
  startOver: "Back to sign in",
  goOn: "Continue",
  choosePassword: "Choose a password",
  choosePasswordBody: "The temporary password was right. Choose one of your own now.",
  newPassword: "New password",
  oldPassword: "Current password",
  repeatPassword: "New password, once more",
  passwordRule:
    "At least 12 characters. Several words in a row are easy to remember and hard to guess.",
  passwordsDiffer: "The two new passwords are not the same.",
  savePassword: "Save password",
  passwordSaved: "Your new password is saved.",
  secondFactor: "Second factor",
  secondFactorBody: "Your account asks for a code besides the password.",
  code: "Code",
  codeHint: "The six digits that your authenticator app shows now, or one of your recovery codes.",
  addFactor: "Add an authenticator app",
  replaceFactor: "Replace the authenticator app",
  removeFactor: "Remove the authenticator app",
  enrolBody:
    "Scan the picture with an authenticator app on your phone, then enter the code that it shows.",
  enrolSecret: "If you cannot scan it, enter this key in the app:",
  qrLabel: "QR code for an authenticator app; the same key stands below it as text",
  recovery: "Keep your recovery codes",
  recoveryBody:
    "Each of them works once in the place of the app's code, for the day on which your phone is lost. They are not shown again.",
  recoveryKept: "I have kept them",
  factorOn: (left: number) =>
    `An authenticator app protects your account. ${left} recovery codes are left.`,
  factorOff: "Your account has none: whoever knows the password can sign in.",
  forgotTitle: "Forgot your password?",
  forgotBody: "We send a code to your e-mail address, with which you set a new password.",
  sendCode: "Send the code",
  resetTitle: "Set a new password",
  resetBody:
    "If the address belongs to an account that had a password, a code is on its way to it. It works for 24 hours.",
  resetCode: "Code from the mail",
  account: "Account",
  changePassword: "Password",
  everywhere: "Sign-ins",
  everywhereBody: "Ends your sign-in in every browser. Applications that run go on.",
  signOutEverywhere: "Sign out everywhere",
  proveBody: "Enter your password again to go on.",
} as const;

/** Why a streaming URL was not accepted, by the code in the address (?error=). */
export function urlErrorText(code: string): { title: string; body: string } {
  return urlErrors.get(code) ?? { title: texts.needUrlTitle, body: texts.needUrlBody };
}

const urlErrors = new Map([
  [
    "url-expired",
    {
      title: "This streaming link has expired",
      body: "Streaming links work for a limited time. Ask for a new one where you got it.",
    },
  ],
  [
    "url-invalid",
    {
      title: "This streaming link is not valid",
      body: "It may have been cut when it was copied. Open the whole link, or ask for a new one.",
    },
  ],
  [
    "url-parameters",
    {
      title: "This streaming link asks for something that is not possible",
      body: "Its resolution or another parameter is out of range. Open the link as you got it, or ask for a new one.",
    },
  ],
]);

/** Why a sign-in at an identity provider was not accepted, by the code in the address; undefined: it is no such code. */
export function signInErrorText(code: string): string | undefined {
  return signInErrors.get(code);
}

const signInErrors = new Map([
  [
    "other-browser",
    "It was begun in another browser, or it took too long. Sign in again in this one.",
  ],
  ["provider-away", "Your identity provider does not answer. Try again in a moment."],
  ["provider-refused", "Your identity provider did not sign you in."],
  ["wrong-issuer", "The answer came from another identity provider. Sign in again."],
  [
    "bad-assertion",
    "Your identity provider's answer could not be accepted. Sign in again; if it happens again, tell your administrator.",
  ],
  [
    "bad-token",
    "Your identity provider's answer could not be accepted. Sign in again; if it happens again, tell your administrator.",
  ],
  [
    "bad-user",
    "Your identity provider does not say clearly enough who you are. Tell your administrator.",
  ],
  [
    "bad-role",
    "The role that your identity provider gives you lets you open nothing here. Tell your administrator.",
  ],
  ["wrong-stack", "These applications are not assigned to you. Ask your administrator."],
  ["replayed", "This sign-in was used before. Sign in again."],
  ["not-signed-in", "The sign-in took too long. Sign in again."],
  ["no-record", "Nobody can sign in at this moment. Tell your administrator."],
  ["busy", "Many people are signing in at this moment. Try again."],
  ["sign-in-failed", "Something went wrong on our side. Sign in again."],
]);

/** What a code means, when the server gives no reason. */
export function reasonText(code: string): string {
  return (
    reasons.get(code) ??
    "Something went wrong on our side. Try again; if it happens again, tell your administrator."
  );
}

const reasons = new Map<string, string>([
  ["sign-in-failed", "The sign-in was not completed. Begin again."],
  [
    "timeout",
    "The session did not become ready within two minutes. Try again; if it happens again, tell your administrator.",
  ],
  ["unreachable", "The portal does not answer. Check your network, then try again."],
]);
