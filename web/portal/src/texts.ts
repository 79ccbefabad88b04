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

/** What a code means, when the server gives no reason. */
export function reasonText(code: string): string {
  return (
    reasons.get(code) ??
    "Something went wrong on our side. Try again; if it happens again, tell your administrator."
  );
}

const reasons = new Map<string, string>([
  [
    "timeout",
    "The session did not become ready within two minutes. Try again; if it happens again, tell your administrator.",
  ],
  ["unreachable", "The portal does not answer. Check your network, then try again."],
]);
