/** The user's machine is a Mac, or an iPad with a keyboard. */
export function isMac(): boolean {
  const { userAgentData, platform } = navigator as Navigator & {
    userAgentData?: { platform?: string };
  };
  return /^mac|^ipad|^iphone/i.test(userAgentData?.platform || platform);
}
