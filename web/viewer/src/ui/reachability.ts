/** One hop of GET /v1/reachability: a rule on the way that allows or blocks. */
export interface Hop {
  kind: string;
  resource: string;
  rule: string;
  allow: boolean;
  why: string;
  fix: string;
}

export interface Reachability {
  ok: boolean;
  symptom: string;
  hops: Hop[];
}

/** Asks the endpoint why a port cannot be reached; undefined when it does not answer. */
export async function askReachability(
  port: number,
  ticket: string,
  signal: AbortSignal,
): Promise<Reachability | undefined> {
  try {
    const response = await fetch(`/v1/reachability?port=${port}`, {
      headers: { Authorization: `Bearer ${ticket}` },
      signal,
    });
    if (!response.ok) {
      return undefined;
    }
    return parse(await response.json());
  } catch {
    return undefined;
  }
}

function parse(value: unknown): Reachability {
  const answer = (value ?? {}) as Record<string, unknown>;
  const hops = Array.isArray(answer["hops"]) ? answer["hops"] : [];
  return {
    ok: answer["ok"] === true,
    symptom: text(answer["symptom"]),
    hops: hops.map((item: unknown) => {
      const hop = (item ?? {}) as Record<string, unknown>;
      return {
        kind: text(hop["kind"]),
        resource: text(hop["resource"]),
        rule: text(hop["rule"]),
        allow: hop["allow"] === true,
        why: text(hop["why"]),
        fix: text(hop["fix"]),
      };
    }),
  };
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
