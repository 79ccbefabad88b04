import { createRequire } from "node:module";
import type { Page } from "playwright-core";
import { expect } from "vitest";

const path = createRequire(import.meta.url).resolve("axe-core/axe.min.js");

interface AxeResult {
  violations: { id: string; help: string; nodes: { html: string }[] }[];
}

/** Expects the page as it is now to have no accessibility fault that axe can find. */
export async function expectAccessible(page: Page): Promise<void> {
  const source = (await import("node:fs")).readFileSync(path, "utf8");
  await page.evaluate(source); // not a script element: the page's policy would refuse it
  const { violations } = await page.evaluate<AxeResult>("axe.run()");
  expect(violations.map(({ id, help, nodes }) => ({ id, help, html: nodes[0]?.html }))).toEqual([]);
}
