// Looks at HTML reports in headless Chromium, as their readers do: both themes, a wide and a narrow window, paper, keyboard only, without
// scripts. A finding ends with exit code 1.
//
//     npm ci && node check.mjs [--shots FOLDER] PAGE.html...
//
// CHROMIUM names the browser (default: /usr/bin/chromium). With --shots, what was seen is kept as pictures, for eyes.

import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const WIDTHS = [1280, 390];
const THEMES = ["light", "dark"];

const pages = process.argv.slice(2);
let shots = null;
if (pages[0] === "--shots") {
  [, shots] = pages.splice(0, 2);
  mkdirSync(shots, { recursive: true });
}
if (pages.length === 0) {
  console.error("usage: node check.mjs [--shots FOLDER] PAGE.html...");
  process.exit(2);
}

let failures = 0;
const say = (page, what) => {
  failures += 1;
  console.log(`${page}: ${what}`);
};

/** Opens a page and notes whatever it wants from elsewhere and whatever goes wrong in it. */
async function open(browser, file, name, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const url = pathToFileURL(resolve(file)).href;
  page.on("request", (request) => {
    if (request.url() !== url) say(name, `asks for ${request.url()}`);
  });
  page.on("pageerror", (error) => say(name, `script: ${error.message}`));
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) say(name, `console: ${message.text()}`);
  });
  await page.goto(url);
  // What folds out is looked at, too.
  await page.evaluate(() => document.querySelectorAll("details").forEach((it) => { it.open = true; }));
  return { context, page };
}

/** Nothing but the areas that scroll may be wider than the window. */
const overflow = () => {
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  return wide > 0 ? `${wide} px wider than the window` : null;
};

async function look(browser, file) {
  const name = basename(file, ".html");
  for (const colorScheme of THEMES) {
    for (const width of WIDTHS) {
      const viewport = { width, height: width > 600 ? 900 : 844 };
      const { context, page } = await open(browser, file, name, { colorScheme, viewport });
      const wide = await page.evaluate(overflow);
      if (wide) say(name, `${wide} at ${width} px`);
      await page.evaluate(axe);
      const result = await page.evaluate(() => window.axe.run(document));
      for (const found of result.violations) {
        const where = found.nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ");
        say(name, `axe ${found.impact}, ${colorScheme}, ${width} px: ${found.id} (${found.help}) at ${where}`);
      }
      if (shots) await page.screenshot({ path: join(shots, `${name}-${colorScheme}-${width}.png`), fullPage: true });
      await context.close();
    }
  }
}

/** Sorting, filtering and reading plots with keys alone. */
async function keys(browser, file) {
  const name = basename(file, ".html");
  const { context, page } = await open(browser, file, name, {});
  const sorted = page.locator("table.sortable");
  for (let at = 0; at < (await sorted.count()); at += 1) {
    const table = sorted.nth(at);
    const buttons = table.locator("thead button");
    if ((await buttons.count()) !== (await table.locator("thead th").count())) say(name, "a header cannot be sorted");
    await buttons.first().focus();
    for (const expected of ["ascending", "descending"]) {
      await page.keyboard.press("Enter");
      const order = await table.locator("thead th").first().getAttribute("aria-sort");
      if (order !== expected) say(name, `aria-sort is ${order}, not ${expected}`);
    }
  }
  const filters = page.getByRole("searchbox");
  for (let at = 0; at < (await filters.count()); at += 1) {
    const filter = filters.nth(at);
    const told = page.locator(`#${await filter.getAttribute("id")} ~ [role=status]`);
    const before = await told.textContent();
    await filter.fill("no row has this");
    await page.waitForFunction(([box, text]) => box.textContent !== text, [await told.elementHandle(), before], { timeout: 2000 }).catch(() => {});
    if (!/^(0|no) /i.test(await told.textContent())) say(name, `the filter says ${await told.textContent()}`);
    await filter.fill("");
  }
  const plots = page.locator(".plot");
  for (let at = 0; at < (await plots.count()); at += 1) {
    const plot = plots.nth(at);
    await plot.locator(".scroll").focus();
    await page.keyboard.press("ArrowRight");
    const told = await plot.locator(".readout").textContent();
    const title = await plot.locator(".mark title").first().textContent();
    if (told !== title) say(name, `the keyboard reads ${JSON.stringify(told)}, the tooltip ${JSON.stringify(title)}`);
  }
  await context.close();
}

/** Without scripts nothing may be missing but sorting and filtering. */
async function still(browser, file) {
  const name = basename(file, ".html");
  const { context, page } = await open(browser, file, name, { javaScriptEnabled: false });
  if ((await page.locator("h1").count()) !== 1) say(name, "no title without scripts");
  if ((await page.locator("thead button, input").count()) !== 0) say(name, "controls that do nothing without scripts");
  for (const part of ["main", "footer"]) {
    if (!(await page.locator(part).innerText()).trim()) say(name, `${part} is empty without scripts`);
  }
  if (shots) {
    await page.screenshot({ path: join(shots, `${name}-still.png`), fullPage: true });
    await page.pdf({ path: join(shots, `${name}.pdf`), format: "A4", printBackground: false });
  }
  await context.close();
}

/** How long until a page can be used, in milliseconds. */
async function load(browser, file) {
  const { context, page } = await open(browser, file, basename(file), {});
  const time = await page.evaluate(() => performance.getEntriesByType("navigation")[0].loadEventEnd);
  await context.close();
  return Math.round(time);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
for (const file of pages) {
  const before = failures;
  await look(browser, file);
  await keys(browser, file);
  await still(browser, file);
  const time = await load(browser, file);
  console.log(`${basename(file)}: ${failures === before ? "fine" : "see above"}, open after ${time} ms`);
}
await browser.close();
process.exit(failures > 0 ? 1 : 0);
