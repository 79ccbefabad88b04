/** GET /v1/config.json of the endpoint. */
export interface Config {
  portalUrl: string;
  endpointId: string;
  region: string;
  /** Addresses of the endpoint in all its zones, as they stand in URLs. */
  hosts: string[];
}

/** An IPv4 address, an IPv6 address in brackets, or a name. */
const hostShape = /^[A-Za-z0-9.-]{1,253}$|^\[[0-9A-Fa-f:.]{2,45}\]$/;

/** The endpoint's configuration, or empty values when it cannot be read: it only feeds the way back. */
export async function loadConfig(): Promise<Config> {
  const config: Config = { portalUrl: "", endpointId: "", region: "", hosts: [] };
  try {
    const response = await fetch("/v1/config.json");
    const got = (await response.json()) as Record<string, unknown>;
    for (const name of ["portalUrl", "endpointId", "region"] as const) {
      const value = got[name];
      if (typeof value === "string") {
        config[name] = value;
      }
    }
    const hosts = got["hosts"];
    if (Array.isArray(hosts)) {
      config.hosts = hosts.filter((host) => typeof host === "string" && hostShape.test(host));
    }
  } catch {
    // no way back is shown
  }
  if (!/^https?:\/\//.test(config.portalUrl) && !/^\/(?!\/)/.test(config.portalUrl)) {
    config.portalUrl = "";
  }
  return config;
}
