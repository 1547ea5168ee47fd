// The terminal page: which terminals there are, which one is seen, and what the keys do.

import { closeTerminal, createTerminal, listTerminals, RequestError } from "./api";
import { Backoff } from "./backoff";
import { byId, icon, make } from "./dom";
import { labelOf, placeOf } from "./place";
import { PortsPanel } from "./ports";
import { TerminalSession } from "./session";
import type { SessionEvents } from "./session";
import { StatusBar } from "./status";
import { onThemeChange } from "./theme";
import type { Size, TerminalInfo } from "./wire";

/** This browser tab's terminal, so that a reload comes back to it. */
const REMEMBERED = "gitspaces.terminal";
const FIRST_SIZE: Size = { rows: 24, cols: 80 };

const place = placeOf(location);
const terminals = byId("terminals");
const tabs = byId("tabs");
const newButton = byId<HTMLButtonElement>("new");
const sessions: TerminalSession[] = [];
let selected: TerminalSession | null = null;
let creating = false;

const events: SessionEvents = {
  changed(session) {
    if (session === selected) status.show(session.state);
    drawTabs();
  },
  restart: (session) => void restart(session),
  leave: () => (tabs.querySelector<HTMLElement>('[aria-selected="true"]') ?? newButton).focus(),
};
const status = new StatusBar({
  retry: () => (selected ? selected.retryNow() : location.reload()),
  restart: () => void (selected ? restart(selected) : create()),
});
new PortsPanel(place, () => selected?.fit());

document.title = place.name;
byId("name").textContent = place.name;
newButton.addEventListener("click", () => void create());
tabs.addEventListener("keydown", tabKeys);
document.addEventListener("keydown", (event) => {
  // Inside the terminal the same keys lead out of it.
  if (event.key === "F6" && event.ctrlKey && !event.defaultPrevented) {
    event.preventDefault();
    selected?.focus();
  }
});
new ResizeObserver(() => selected?.fit()).observe(terminals);
window.addEventListener("online", retryAll);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  retryAll();
  void refresh();
});
onThemeChange((theme) => {
  for (const session of sessions) session.terminal.options.theme = theme;
});
void start(new Backoff());

/** Comes back to the terminal this browser tab had, else to the newest, else makes one. */
async function start(backoff: Backoff): Promise<void> {
  status.say("Connecting…", "wait");
  try {
    for (const info of oldestFirst(await listTerminals())) add(info);
  } catch (error) {
    if (error instanceof RequestError && error.isDenied) {
      status.show({ is: "denied" });
      return;
    }
    const delay = backoff.next(performance.now(), Math.random());
    status.show({ is: "waiting", until: Date.now() + delay, why: reasonOf(error) });
    window.setTimeout(() => void start(backoff), delay);
    return;
  }
  const remembered = sessionStorage.getItem(REMEMBERED);
  const found = sessions.find((session) => session.id === remembered) ?? sessions.at(-1);
  if (found) select(found);
  else await create();
}

/** Terminals that were made elsewhere appear; those that ended and were never looked at here go. */
async function refresh(): Promise<void> {
  let listed: TerminalInfo[];
  try {
    listed = await listTerminals();
  } catch {
    // The selected terminal's own line says what is wrong.
    return;
  }
  for (const info of oldestFirst(listed)) if (!sessions.some((session) => session.id === info.id)) add(info);
  for (const session of [...sessions]) {
    if (session.state.is === "idle" && !listed.some((info) => info.id === session.id)) remove(session);
  }
  drawTabs();
}

function add(info: TerminalInfo, before?: TerminalSession): TerminalSession {
  const element = make("div", { className: "pane", hidden: true, role: "tabpanel", id: `terminal-${info.id}` });
  element.setAttribute("aria-labelledby", `tab-${info.id}`);
  terminals.append(element);
  const session = new TerminalSession(info, element, events);
  const at = before ? sessions.indexOf(before) : -1;
  sessions.splice(at < 0 ? sessions.length : at, 0, session);
  return session;
}

function remove(session: TerminalSession): void {
  const at = sessions.indexOf(session);
  if (at < 0) return;
  sessions.splice(at, 1);
  session.dispose();
  if (session !== selected) {
    drawTabs();
    return;
  }
  selected = null;
  const neighbour = sessions[at] ?? sessions[at - 1];
  if (neighbour) select(neighbour);
  else showEmpty();
}

function select(session: TerminalSession): void {
  byEmpty()?.remove();
  if (selected && selected !== session) selected.element.hidden = true;
  selected = session;
  session.element.hidden = false;
  sessionStorage.setItem(REMEMBERED, session.id);
  session.fit();
  session.open();
  session.focus();
  status.show(session.state);
  drawTabs();
}

async function create(replaced?: TerminalSession): Promise<void> {
  if (creating) return;
  creating = true;
  newButton.disabled = true;
  try {
    const session = add(await createTerminal(selected?.size ?? FIRST_SIZE), replaced);
    if (replaced) remove(replaced);
    select(session);
  } catch (error) {
    if (error instanceof RequestError && error.isDenied) status.show({ is: "denied" });
    else status.say(`A new terminal cannot be opened: ${reasonOf(error)}`, "bad");
    if (sessions.length === 0) showEmpty();
  } finally {
    creating = false;
    newButton.disabled = false;
  }
}

function restart(session: TerminalSession): Promise<void> {
  return create(session);
}

async function close(session: TerminalSession): Promise<void> {
  try {
    if (session.state.is !== "ended") await closeTerminal(session.id);
    remove(session);
  } catch (error) {
    status.say(`The terminal cannot be closed: ${reasonOf(error)}`, "bad");
  }
}

function showEmpty(): void {
  sessionStorage.removeItem(REMEMBERED);
  if (!byEmpty()) {
    const button = make("button", { type: "button", textContent: "New terminal" });
    button.addEventListener("click", () => void create());
    terminals.append(make("div", { className: "empty" }, make("span", { textContent: "No terminal is open" }), button));
    button.focus();
    if (selected === null && document.querySelector("footer")?.dataset["tone"] !== "bad") status.say("");
  }
  drawTabs();
}

function byEmpty(): Element | null {
  return terminals.querySelector(".empty");
}

function drawTabs(): void {
  const focused = document.activeElement?.id;
  tabs.replaceChildren(
    ...sessions.map((session, at) => {
      const isSelected = session === selected;
      const full = session.title || `Terminal ${at + 1}`;
      const label = labelOf(full);
      const tab = make("button", { type: "button", role: "tab", id: `tab-${session.id}`, textContent: label, title: full });
      tab.setAttribute("aria-selected", String(isSelected));
      tab.setAttribute("aria-controls", session.element.id);
      tab.tabIndex = isSelected ? 0 : -1;
      tab.addEventListener("click", () => select(session));
      const shut = make("button", { type: "button", className: "close", title: "Close terminal", tabIndex: -1 }, icon("M4 4l8 8M12 4l-8 8"));
      shut.setAttribute("aria-label", `Close ${label}`);
      shut.addEventListener("click", () => void close(session));
      const ended = session.state.is === "ended" ? " ended" : "";
      return make("div", { className: `tab${isSelected ? " selected" : ""}${ended}`, role: "presentation" }, tab, shut);
    }),
  );
  if (focused?.startsWith("tab-")) document.getElementById(focused)?.focus();
  tabs.querySelector(".selected")?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Arrow keys, Home and End choose; Delete closes; Enter goes into the terminal. */
function tabKeys(event: KeyboardEvent): void {
  const at = sessions.findIndex((session) => `tab-${session.id}` === document.activeElement?.id);
  const current = sessions[at];
  if (!current) return;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: sessions.length - 1 }[event.key];
  if (to !== undefined) {
    const target = sessions.at(to % sessions.length);
    if (target) {
      select(target);
      document.getElementById(`tab-${target.id}`)?.focus();
    }
  } else if (event.key === "Delete") {
    void close(current);
  } else {
    return;
  }
  event.preventDefault();
}

function retryAll(): void {
  for (const session of sessions) session.retryNow();
}

function oldestFirst(listed: TerminalInfo[]): TerminalInfo[] {
  return [...listed].sort((a, b) => Date.parse(a.started) - Date.parse(b.started));
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
