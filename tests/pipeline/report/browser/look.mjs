// SPDX-FileCopyrightText: The sev-artifacts authors
// SPDX-License-Identifier: Apache-2.0
//
// node look.mjs CHROMIUM PAGE FOLDER: opens the page offline, wide and as a phone, light and dark; prints what axe-core
// finds, what does not fit, what was fetched and what the console said, as JSON; leaves screenshots in FOLDER.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [program, page, folder] = process.argv.slice(2);
const quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: program, args: quiet });
const found = [];
for (const [name, width, colorScheme] of [["light", 1200, "light"], ["dark", 1200, "dark"], ["phone", 390, "dark"],
  ["phone-light", 390, "light"]]) {
  for (const javaScriptEnabled of [true, false]) {
    const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, javaScriptEnabled,
      offline: true, bypassCSP: false });
    const tab = await context.newPage();
    const look = { name, javaScriptEnabled, requests: [], said: [], violations: [] };
    tab.on("request", (request) => look.requests.push(request.url()));
    tab.on("console", (message) => look.said.push(message.text()));
    tab.on("pageerror", (error) => look.said.push(String(error)));
    await tab.goto(pathToFileURL(page).href);
    if (javaScriptEnabled) {
      // Everything that is folded away is looked at, too.
      await tab.evaluate(() => document.querySelectorAll("details").forEach((one, n) => { one.open = n % 7 === 0; }));
      await tab.evaluate(axe);
      const result = await tab.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      look.violations = result.violations.map((one) => [one.id, one.nodes.slice(0, 3).map((node) => node.html)]);
      look.overflow = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      look.buttons = await tab.locator("button:visible").count();
      await tab.keyboard.press("Tab");
      look.first = await tab.evaluate(() => document.activeElement.textContent.trim());
      await context.grantPermissions(["clipboard-read", "clipboard-write"]).catch(() => {});
      const button = tab.locator("button:visible").first();
      if (look.buttons) {
        await button.focus();
        await tab.keyboard.press("Enter");
        await tab.waitForFunction(() => document.getElementById("heard").textContent !== "");
        look.heard = await tab.locator("#heard").textContent();
      }
      await tab.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = false; }));
      await tab.screenshot({ path: `${folder}/${name}.png`, fullPage: true });
    } else {
      look.text = (await tab.locator("main").innerText()).length;
      look.buttons = await tab.locator("button:visible").count();
    }
    found.push(look);
    await context.close();
  }
}
await browser.close();
console.log(JSON.stringify(found));
