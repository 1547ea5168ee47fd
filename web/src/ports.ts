// The panel of listening ports. It asks only while it is open and the page is seen: a forgotten page must not keep a
// gitspace awake.

import { listPorts } from "./api";
import { byId, make } from "./dom";
import type { Place } from "./place";
import type { ListeningPort } from "./wire";

const REFRESH_MS = 3_000;

export class PortsPanel {
  readonly #place: Place;
  readonly #resized: () => void;
  readonly #panel = byId("ports");
  readonly #toggle = byId<HTMLButtonElement>("ports-toggle");
  readonly #list = byId("ports-list");
  readonly #note = byId("ports-note");
  #timer: number | undefined;
  #shown = "";

  constructor(place: Place, resized: () => void) {
    this.#place = place;
    this.#resized = resized;
    this.#toggle.addEventListener("click", () => this.#open(this.#panel.hidden !== false));
    byId("ports-close").addEventListener("click", () => this.#open(false));
    this.#panel.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.#open(false);
    });
    document.addEventListener("visibilitychange", () => this.#refresh());
  }

  #open(open: boolean): void {
    this.#panel.hidden = !open;
    this.#toggle.setAttribute("aria-expanded", String(open));
    this.#toggle.focus();
    this.#refresh();
    this.#resized();
  }

  #refresh(): void {
    window.clearTimeout(this.#timer);
    if (this.#panel.hidden || document.hidden) return;
    listPorts()
      .then(
        (ports) => this.#show(ports),
        (error: unknown) => {
          this.#note.textContent = `The ports cannot be read: ${error instanceof Error ? error.message : String(error)}`;
        },
      )
      .finally(() => {
        window.clearTimeout(this.#timer);
        this.#timer = window.setTimeout(() => this.#refresh(), REFRESH_MS);
      });
  }

  #show(listening: ListeningPort[]): void {
    const byPort = new Map<number, ListeningPort & { addresses: string[] }>();
    for (const each of listening) {
      const known = byPort.get(each.port);
      if (known) known.addresses.push(each.address);
      else byPort.set(each.port, { ...each, addresses: [each.address] });
    }
    const ports = [...byPort.values()].sort((a, b) => Number(b.forwarded) - Number(a.forwarded) || a.port - b.port);
    const shown = JSON.stringify(ports);
    this.#note.textContent =
      ports.length === 0
        ? "Nothing listens. Start a server in the terminal, also on 127.0.0.1 alone: it appears here."
        : this.#place.portUrl(1) === null
          ? "Links need the page to be opened by the gitspace's own host name."
          : "";
    // An unchanged list is left alone, and with it the focus in it.
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#list.replaceChildren(
      ...ports.map((port) => {
        const url = this.#place.portUrl(port.port);
        const item = make(
          "li",
          {},
          url === null
            ? make("strong", { textContent: String(port.port) })
            : make("a", { href: url, target: "_blank", rel: "noopener", textContent: String(port.port) }),
          make("span", { className: "process", textContent: port.process ?? "" }),
          make("span", { className: "address", textContent: [...new Set(port.addresses)].join(" ") }),
        );
        if (port.forwarded) item.append(make("span", { className: "forwarded", textContent: "in forwardPorts" }));
        return item;
      }),
    );
  }
}
