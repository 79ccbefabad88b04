// Signature Version 4 for one call of the AppStream API, where starting a client would be measured with the call.
import { createHash, createHmac } from "node:crypto";

const sha = (text) => createHash("sha256").update(text).digest("hex");
const mac = (key, text) => createHmac("sha256", key).update(text).digest();

/** Calls an operation of AppStream and answers its JSON; throws what the server said. credentials is { key, secret }. */
export async function callAppStream(url, credentials, region, operation, input) {
  const body = JSON.stringify(input);
  const { host } = new URL(url);
  const time = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
  const headers = {
    "content-type": "application/x-amz-json-1.1",
    host,
    "x-amz-date": time,
    "x-amz-target": `PhotonAdminProxyService.${operation}`,
  };
  const names = Object.keys(headers).join(";");
  const lines = Object.entries(headers).map(([name, value]) => `${name}:${value}\n`);
  const canonical = ["POST", "/", "", lines.join(""), names, sha(body)].join("\n");
  const scope = [time.slice(0, 8), region, "appstream", "aws4_request"];
  const text = ["AWS4-HMAC-SHA256", time, scope.join("/"), sha(canonical)].join("\n");
  const key = scope.reduce((k, part) => mac(k, part), `AWS4${credentials.secret}`);
  const signature = mac(key, text).toString("hex");
  const { host: _, ...sent } = headers;
  const answer = await fetch(url, {
    method: "POST",
    body,
    headers: {
      ...sent,
      authorization: `AWS4-HMAC-SHA256 Credential=${credentials.key}/${scope.join("/")}, SignedHeaders=${names}, Signature=${signature}`,
    },
  });
  const said = await answer.text();
  if (!answer.ok) {
    throw new Error(`${operation}: ${answer.status} ${said}`);
  }
  return said === "" ? {} : JSON.parse(said);
}
