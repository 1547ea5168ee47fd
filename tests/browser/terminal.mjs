// The terminal in a browser: node tests/browser/terminal.mjs URL [--screenshots FOLDER]
//
// Opens a one-time link of a gitspace in Chromium, works in the shell, reloads, and finds shell, screen and scroll-back
// again. Exit code 0 where all of it holds, else 1 with what was expected and what the page showed; 64 for wrong usage.
// Chromium is /usr/bin/chromium, or $CHROMIUM. First: npm ci --prefix tests/browser.

import { mkdirSync } from "node:fs";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const STEP_MS = 20_000;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const { values, positionals } = parseArgs({ options: { screenshots: { type: "string" } }, allowPositionals: true });
const [url] = positionals;
if (positionals.length !== 1 || !URL.canParse(url)) {
  console.error("usage: node tests/browser/terminal.mjs URL [--screenshots FOLDER]");
  process.exit(64);
}
if (values.screenshots) mkdirSync(values.screenshots, { recursive: true });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
const page = await (await browser.newContext({ viewport: { width: 1100, height: 680 } })).newPage();
page.setDefaultTimeout(STEP_MS);
const complaints = [];
page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
page.on("console", (message) => {
  if (message.type() === "error" || message.text().includes("Content Security Policy")) complaints.push(message.text());
});

// Other tests' containers come and go, and with them interfaces of this host: Chromium then breaks off what is under way, and a person reloads.
const CHANGED = "ERR_NETWORK_CHANGED";
let brokenOff = false;
page.on("requestfailed", (request) => {
  if (request.failure()?.errorText.includes(CHANGED)) brokenOff = true;
});

async function open() {
  for (let left = 4; ; left -= 1) {
    brokenOff = false;
    // A link is good once: behind it the page is at its own address.
    const address = page.url().startsWith("http") ? page.url() : url;
    try {
      const response = await page.goto(address);
      if (!response?.ok()) throw new Error(`the answer is ${response?.status()}`);
      return await connected();
    } catch (error) {
      if (left === 0 || !(brokenOff || String(error).includes(CHANGED))) throw error;
      complaints.length = 0;
    }
  }
}

try {
  await step("the link opens a connected terminal", async () => {
    await open();
    if (new URL(page.url()).pathname !== "/") throw new Error(`the address is ${page.url()}, which may hold the code`);
  });
  // What another shell here was left in is not this test's to know.
  const others = await page.getByRole("tab").count();
  await step("a second terminal opens beside the first", async () => {
    await openTerminal(others + 1);
  });
  await step("a command's output is seen", async () => {
    await type("echo hello-$((40+2))");
    await line("hello-42");
  });
  await shot("terminal");
  await step("more than a screen is written", async () => {
    await type("kept=yes; seq -f 'line-%g' 1 300; echo end-$((1+1))");
    await line("end-2");
  });
  await step("after a reload the screen is there again", async () => {
    await page.reload();
    await connected();
    await line("line-300");
    await line("end-2");
  });
  await step("it is the same shell", async () => {
    await type("echo still-$kept");
    await line("still-yes");
  });
  await step("the scroll-back is there again", async () => {
    for (let pages = 0; pages < 20; pages += 1) await page.keyboard.press("Shift+PageUp");
    await line("hello-42");
  });
  await step("each terminal keeps its own screen", async () => {
    await openTerminal(others + 2);
    await type("echo other-$((1+1))");
    await line("other-2");
    await page.getByRole("tab").nth(others).click();
    await type("echo back-$((3+3))");
    await line("back-6");
  });
  await step("a shell that ends says so, and Enter opens another", async () => {
    await page.getByRole("tab").last().click();
    await type("exit");
    await page.getByRole("status").filter({ hasText: "press Enter for a new shell" }).waitFor();
    await page.keyboard.press("Enter");
    await connected();
    await prompt();
    await type("echo fresh-$((2+3))");
    await line("fresh-5");
    await page.getByRole("tab").last().press("Delete");
    await tabs(others + 1);
  });
  await step("a listening port is listed", async () => {
    await page.getByRole("tab").last().click();
    await type("python3 -m http.server --bind 127.0.0.1 18765 >/dev/null 2>&1 &");
    await page.getByRole("button", { name: "Ports", exact: true }).click();
    await page.locator("#ports-list").getByText("18765").waitFor();
    await shot("ports");
    await page.keyboard.press("Control+F6");
    await type("kill $!");
    await page.getByRole("tab").last().press("Delete");
    await tabs(others);
  });
  if (complaints.length > 0) throw new Error(`the page complained: ${complaints.join("; ")}`);
  console.log("ok: the terminal works, and survives a reload");
} catch (error) {
  await shot("failure");
  console.error(`not ok: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function step(claim, check) {
  try {
    await check();
  } catch (error) {
    const status = await page.getByRole("status").textContent({ timeout: 1000 }).catch(() => "none");
    const reason = String(error.message).split("\n")[0];
    const rows = (await screen().catch(() => [])).filter((row) => row !== "");
    const shown = rows.length === 0 ? "nothing" : `\n  | ${rows.slice(-12).join("\n  | ")}`;
    throw new Error(`${claim}: ${reason}\naddress: ${new URL(page.url()).origin}\nstatus bar: ${status}\nconsole: ${complaints.join("; ") || "quiet"}\nscreen: ${shown}`);
  }
  console.log(`ok: ${claim}`);
}

function connected() {
  return page.getByRole("status").filter({ hasText: /^Connected$/ }).waitFor();
}

async function openTerminal(count) {
  await page.getByRole("button", { name: "New terminal" }).first().click();
  await tabs(count);
  await connected();
  await prompt();
}

/** Waits until the shell has written something: what is typed before would be echoed twice. */
function prompt() {
  return page.waitForFunction(() =>
    [...document.querySelectorAll(".pane:not([hidden]) .xterm-rows > div")].some((row) => row.textContent.trim() !== ""),
  );
}

async function type(command) {
  await page.keyboard.type(command);
  await page.keyboard.press("Enter");
}

/** Waits for a row of the seen terminal that holds this and nothing else. */
function line(text) {
  return page.waitForFunction(
    (wanted) =>
      [...document.querySelectorAll(".pane:not([hidden]) .xterm-rows > div")].some(
        (row) => row.textContent.replaceAll("\u00a0", " ").trim() === wanted,
      ),
    text,
  );
}

function screen() {
  return page.evaluate(() =>
    [...document.querySelectorAll(".pane:not([hidden]) .xterm-rows > div")].map((row) => row.textContent.replaceAll("\u00a0", " ").trimEnd()),
  );
}

function tabs(count) {
  return page.waitForFunction((wanted) => document.querySelectorAll('[role="tab"]').length === wanted, count);
}

async function shot(name) {
  if (values.screenshots) await page.screenshot({ path: `${values.screenshots}/${name}.png` });
}
