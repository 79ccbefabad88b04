/** GET /v1/config.json of the endpoint. */
export interface Config {
  portalUrl: string;
  endpointId: string;
  region: string;
}

/** The endpoint's configuration, or empty values when it cannot be read: it only feeds the way back. */
export async function loadConfig(): Promise<Config> {
  const config: Config = { portalUrl: "", endpointId: "", region: "" };
  try {
    const response = await fetch("/v1/config.json");
    const got = (await response.json()) as Record<string, unknown>;
    for (const name of ["portalUrl", "endpointId", "region"] as const) {
      const value = got[name];
      if (typeof value === "string") {
        config[name] = value;
      }
    }
  } catch {
    // no way back is shown
  }
  if (!/^https?:\/\//.test(config.portalUrl) && !/^\/(?!\/)/.test(config.portalUrl)) {
    config.portalUrl = "";
  }
  return config;
}
