// An endpoint with IPv6 addresses alone, on the kernel driver in a namespace: Chromium opens the page at the address, and both kinds
// of ports stream.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Networks, namespacesMissing } from "./networks.ts";
import { exactPicture } from "./picture.ts";
import { Region } from "./region.ts";

const missing = namespacesMissing();
if (missing !== undefined && process.env["PENSTOCK_TEST_STRICT"] === "1") {
  throw new Error(missing);
}

const networks = new Networks();
const region = new Region({ within: ["nsenter", `--net=/run/netns/${networks.server}`, "--"] });
const folder = mkdtempSync(join(tmpdir(), "penstock-ipv6-"));
const home = join(folder, "home");
let context: BrowserContext | undefined;

describe.skipIf(missing !== undefined)("IPv6", () => {
  beforeAll(async () => {
    mkdirSync(home);
    await networks.make("203.0.113.10");
    await region.start("--net", "kernel");
    await region.trust(home);
  }, 120_000);
  afterAll(async () => {
    await context?.close();
    await region.stop();
    await networks.remove();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);

  it("streams from a page at an IPv6 address", async () => {
    const office = region.dev.userNetworks.map((n) => n.cidr).find((n) => n.includes(":"));
    if (office === undefined) {
      return; // this machine has no IPv6
    }
    const address = await makeEndpoint(office);
    const start = join(folder, "chromium");
    const program = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
    writeFileSync(start, `#!/bin/sh\nexec ip netns exec ${networks.server} ${program} "$@"\n`);
    chmodSync(start, 0o755);
    context = await chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath: start,
      env: { ...process.env, HOME: home } as Record<string, string>,
      args: ["--no-sandbox"], // of processes: the tests run as root
      viewport: { width: 1000, height: 700 },
    });
    const page = await context.newPage();
    const sockets: URL[] = [];
    const refused: string[] = [];
    page.on("websocket", (socket) => sockets.push(new URL(socket.url())));
    page.on("console", (message) => {
      if (/Content Security Policy/i.test(message.text())) {
        refused.push(message.text());
      }
    });
    await page.goto(await region.streamingUrl("six", "xterm"));
    await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
      timeout: 50_000,
    });
    await exactPicture(region, page, "six");
    expect(new URL(page.url()).hostname).toBe(`[${address}]`);
    expect(new Set(sockets.map((s) => s.hostname))).toEqual(new Set([`[${address}]`]));
    expect(sockets.some((s) => Number(s.port) >= 1400)).toBe(true);
    expect(sockets.some((s) => s.port === "")).toBe(true);
    expect(refused).toEqual([]);
  }, 180_000);
});

/** Makes an IPv6 endpoint that admits a network, binds the stack to it, and returns its address. */
async function makeEndpoint(office: string): Promise<string> {
  const made = (await region.aws(
    "ec2",
    "create-vpc",
    ...["--cidr-block", "10.66.0.0/16", "--amazon-provided-ipv6-cidr-block"],
  )) as { Vpc: { VpcId: string; Ipv6CidrBlockAssociationSet: [{ Ipv6CidrBlock: string }] } };
  const vpc = made.Vpc.VpcId;
  const block = made.Vpc.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock.replace("/56", "/64");
  const { Subnet: subnet } = (await region.aws(
    "ec2",
    "create-subnet",
    ...["--vpc-id", vpc, "--ipv6-native", "--ipv6-cidr-block", block],
  )) as { Subnet: { SubnetId: string } };
  const { GroupId: group } = (await region.aws(
    "ec2",
    "create-security-group",
    ...["--vpc-id", vpc, "--group-name", "viewers", "--description", "streams"],
  )) as { GroupId: string };
  for (const [from, to] of [
    [443, 443],
    [1400, 1499],
  ]) {
    const rule = `IpProtocol=tcp,FromPort=${from},ToPort=${to},Ipv6Ranges=[{CidrIpv6=${office}}]`;
    await region.aws(
      "ec2",
      "authorize-security-group-ingress",
      ...["--group-id", group, "--ip-permissions", rule],
    );
  }
  const { VpcEndpoint: endpoint } = (await region.aws(
    "ec2",
    "create-vpc-endpoint",
    ...["--vpc-id", vpc, "--vpc-endpoint-type", "Interface", "--no-private-dns-enabled"],
    ...["--service-name", "com.amazonaws.us-east-1.appstream.streaming"],
    ...["--subnet-ids", subnet.SubnetId, "--security-group-ids", group],
    ...["--ip-address-type", "ipv6"],
  )) as { VpcEndpoint: { VpcEndpointId: string; NetworkInterfaceIds: [string] } };
  const state = async () => {
    const said = (await region.aws(
      "ec2",
      "describe-vpc-endpoints",
      ...["--vpc-endpoint-ids", endpoint.VpcEndpointId],
    )) as { VpcEndpoints: [{ State: string }] };
    return said.VpcEndpoints[0].State;
  };
  await expect.poll(state, { timeout: 30_000 }).toBe("available");
  await region.aws(
    "appstream",
    "update-stack",
    ...["--name", region.dev.stackName],
    ...["--access-endpoints", `EndpointType=STREAMING,VpceId=${endpoint.VpcEndpointId}`],
  );
  const { NetworkInterfaces: interfaces } = (await region.aws(
    "ec2",
    "describe-network-interfaces",
    ...["--network-interface-ids", endpoint.NetworkInterfaceIds[0]],
  )) as { NetworkInterfaces: [{ Ipv6Addresses: [{ Ipv6Address: string }] }] };
  return interfaces[0].Ipv6Addresses[0].Ipv6Address;
}
