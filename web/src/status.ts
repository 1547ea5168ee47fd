// The status bar: what is true of the selected terminal's line, in words.

import { byId } from "./dom";
import type { SessionState } from "./session";

type Tone = "good" | "wait" | "bad" | "none";

interface Line {
  readonly tone: Tone;
  readonly text: string;
  readonly action?: "retry" | "restart" | "reload";
}

const ACTIONS = { retry: "Reconnect now", restart: "New shell", reload: "Open again" } as const;

/** What the bar says of a state at a time. Pure. */
export function lineOf(state: SessionState, now: number): Line {
  switch (state.is) {
    case "idle":
    case "connecting":
      return { tone: "wait", text: "Connecting…" };
    case "connected":
      return { tone: "good", text: "Connected" };
    case "waiting": {
      const seconds = Math.max(1, Math.ceil((state.until - now) / 1000));
      return { tone: "wait", text: `Reconnecting in ${seconds} s: ${state.why}`, action: "retry" };
    }
    case "catching_up":
      return { tone: "wait", text: "Catching up: output came faster than it can be drawn" };
    case "ended": {
      const hint = state.hint === null ? "" : ` (${state.hint})`;
      return { tone: state.ok ? "none" : "bad", text: `${state.why}${hint}: press Enter for a new shell`, action: "restart" };
    }
    case "denied":
      return { tone: "bad", text: "Your access to this gitspace has expired", action: "reload" };
  }
}

export class StatusBar {
  readonly #footer = document.querySelector("footer") as HTMLElement;
  readonly #status = byId("status");
  readonly #act = byId<HTMLButtonElement>("act");
  #state: SessionState | null = null;
  #action: Line["action"];
  #timer: number | undefined;

  constructor(acts: { retry(): void; restart(): void }) {
    this.#act.addEventListener("click", () => {
      if (this.#action === "retry") acts.retry();
      else if (this.#action === "restart") acts.restart();
      else if (this.#action === "reload") location.reload();
    });
  }

  show(state: SessionState): void {
    this.#state = state;
    this.#draw();
  }

  /** Something that is not about one terminal. */
  say(text: string, tone: Tone = "none"): void {
    this.#state = null;
    this.#write({ tone, text });
  }

  #draw(): void {
    window.clearTimeout(this.#timer);
    if (!this.#state) return;
    this.#write(lineOf(this.#state, Date.now()));
    if (this.#state.is === "waiting") this.#timer = window.setTimeout(() => this.#draw(), 1000);
  }

  #write(line: Line): void {
    this.#footer.dataset["tone"] = line.tone;
    if (this.#status.textContent !== line.text) this.#status.textContent = line.text;
    this.#action = line.action;
    this.#act.hidden = line.action === undefined;
    if (line.action) this.#act.textContent = ACTIONS[line.action];
  }
}
