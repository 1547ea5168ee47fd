// One terminal of the gitspace: an xterm and the WebSocket that it is attached by.
//
// Responsible for attaching again after a cut line, exactly where the stream stopped; it never gives up by itself. States:
//
//   idle → connecting → connected → waiting → connecting → …
//                  └──────────┴──→ ended | denied
//
// Invariant: `#position` counts the stream's bytes that were given to xterm, from where `attached` said; it is what the next
// attach asks for. A snapshot is the one message after such an `attached`, draws all before that position, and is not counted.

import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import { attachUrl, listTerminals, RequestError } from "./api";
import { Backoff } from "./backoff";
import { currentTheme } from "./theme";
import { MAX_INPUT, parseServerMessage } from "./wire";
import type { ClientMessage, ServerMessage, Size, TerminalInfo } from "./wire";

const SCROLLBACK_LINES = 10_000;
/** Output that xterm has not drawn: above the first the line is cut, below the second it is attached again. */
const UNDRAWN_HIGH = 8 * 1024 * 1024;
const UNDRAWN_LOW = 256 * 1024;
/** Longest wait for a WebSocket to open and answer. */
const CONNECT_MS = 15_000;

export type SessionState =
  | { readonly is: "idle" }
  | { readonly is: "connecting" }
  | { readonly is: "connected" }
  | { readonly is: "waiting"; readonly until: number; readonly why: string }
  | { readonly is: "catching_up" }
  | { readonly is: "ended"; readonly why: string; readonly hint: string | null; readonly ok: boolean }
  | { readonly is: "denied" };

export interface SessionEvents {
  changed(session: TerminalSession): void;
  /** Enter in a terminal that has ended. */
  restart(session: TerminalSession): void;
  /** The keys that lead out of the terminal. */
  leave(): void;
}

export class TerminalSession {
  readonly id: string;
  readonly element: HTMLElement;
  readonly terminal: Terminal;
  title: string;

  readonly #events: SessionEvents;
  readonly #fit = new FitAddon();
  readonly #backoff = new Backoff();
  readonly #encoder = new TextEncoder();
  #state: SessionState = { is: "idle" };
  #socket: WebSocket | null = null;
  #position: number | null = null;
  #snapshotNext = false;
  /** Above zero while a snapshot is drawn: what xterm answers to the queries in it would be typed into the shell. */
  #replaying = 0;
  #undrawn = 0;
  #timer: number | undefined;
  #sentSize: Size | null = null;

  constructor(info: TerminalInfo, element: HTMLElement, events: SessionEvents) {
    this.id = info.id;
    this.title = info.title;
    this.element = element;
    this.#events = events;
    this.terminal = new Terminal({
      cursorBlink: true,
      fontFamily: getComputedStyle(document.documentElement).getPropertyValue("--mono"),
      fontSize: 14,
      lineHeight: 1.15,
      scrollback: SCROLLBACK_LINES,
      theme: currentTheme(),
      macOptionIsMeta: true,
      minimumContrastRatio: 4.5,
    });
    this.terminal.loadAddon(this.#fit);
    this.terminal.open(element);
    this.terminal.onData((data) => this.#typed(this.#encoder.encode(data)));
    this.terminal.onBinary((data) => this.#typed(Uint8Array.from(data, (char) => char.charCodeAt(0))));
    this.terminal.onResize(() => this.#sendSize());
    this.terminal.onTitleChange((title) => {
      this.title = title.trim() || info.title;
      this.#events.changed(this);
    });
    this.terminal.attachCustomKeyEventHandler((event) => this.#key(event));
  }

  get state(): SessionState {
    return this.#state;
  }

  /** Attaches, unless it is or has been. */
  open(): void {
    if (this.#state.is === "idle") this.#connect();
  }

  /** The user, or the network, says that it may work again. */
  retryNow(): void {
    if (this.#state.is !== "waiting") return;
    this.#backoff.reset();
    this.#connect();
  }

  fit(): void {
    if (this.element.clientWidth > 0 && this.element.clientHeight > 0) this.#fit.fit();
  }

  focus(): void {
    this.terminal.focus();
  }

  dispose(): void {
    window.clearTimeout(this.#timer);
    this.#hangUp();
    this.terminal.dispose();
    this.element.remove();
  }

  get size(): Size {
    return { rows: this.terminal.rows, cols: this.terminal.cols };
  }

  #connect(): void {
    window.clearTimeout(this.#timer);
    this.#hangUp();
    this.#set({ is: "connecting" });
    const socket = new WebSocket(attachUrl(this.id));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#timer = window.setTimeout(() => this.#lost(socket, "no answer in time"), CONNECT_MS);
    socket.onopen = () => {
      this.#sentSize = this.size;
      this.#send({ type: "attach", from: this.#position, size: this.size });
    };
    socket.onmessage = (event: MessageEvent<string | ArrayBuffer>) => {
      if (typeof event.data === "string") {
        const message = parseServerMessage(event.data);
        if (message) this.#said(socket, message);
        else this.#lost(socket, "the gitspace sent a message this page does not know");
      } else {
        this.#output(socket, new Uint8Array(event.data));
      }
    };
    socket.onclose = () => this.#lost(socket, navigator.onLine ? "connection lost" : "this computer is offline");
  }

  #said(socket: WebSocket, message: ServerMessage): void {
    switch (message.type) {
      case "attached":
        window.clearTimeout(this.#timer);
        this.#position = message.position;
        this.#snapshotNext = message.snapshot;
        // A full reset, in its place behind what is not drawn yet.
        if (message.snapshot) this.terminal.write("\x1bc");
        this.#backoff.connected(performance.now());
        this.#set({ is: "connected" });
        // It may have changed while the line was cut.
        this.#sendSize();
        break;
      case "exited":
        this.#end(socket, {
          is: "ended",
          why: message.exit_code === 0 ? "Shell ended" : `Shell ended with code ${message.exit_code}`,
          hint: null,
          ok: message.exit_code === 0,
        });
        break;
      case "failed":
        this.#end(socket, { is: "ended", why: message.failure.message, hint: message.failure.hint ?? null, ok: false });
        break;
    }
  }

  #output(socket: WebSocket, message: Uint8Array): void {
    // The first byte is the channel; a terminal has one only.
    const bytes = message.subarray(1);
    const snapshot = this.#snapshotNext;
    this.#snapshotNext = false;
    if (snapshot) this.#replaying += 1;
    else if (this.#position !== null) this.#position += bytes.length;
    this.#undrawn += bytes.length;
    this.terminal.write(bytes, () => {
      if (snapshot) this.#replaying -= 1;
      this.#undrawn -= bytes.length;
      if (this.#state.is === "catching_up" && this.#undrawn <= UNDRAWN_LOW) this.#connect();
    });
    if (this.#undrawn > UNDRAWN_HIGH && socket === this.#socket) {
      // A WebSocket cannot be told to wait. What is missed meanwhile is drawn by the next attach's snapshot.
      this.#hangUp();
      this.#set({ is: "catching_up" });
    }
  }

  #end(socket: WebSocket, state: SessionState): void {
    if (socket !== this.#socket) return;
    window.clearTimeout(this.#timer);
    this.#hangUp();
    this.#set(state);
  }

  #lost(socket: WebSocket, why: string): void {
    if (socket !== this.#socket) return;
    window.clearTimeout(this.#timer);
    this.#hangUp();
    const delay = this.#backoff.next(performance.now(), Math.random());
    this.#set({ is: "waiting", until: Date.now() + delay, why });
    this.#timer = window.setTimeout(() => this.#connect(), delay);
    // A WebSocket that is refused does not say why; a plain request does.
    listTerminals().then(
      (listed) => {
        if (this.#state.is !== "waiting") return;
        if (!listed.some((info) => info.id === this.id)) {
          window.clearTimeout(this.#timer);
          this.#set({ is: "ended", why: "Shell ended", hint: null, ok: true });
        }
      },
      (error: unknown) => {
        if (this.#state.is !== "waiting" || !(error instanceof RequestError)) return;
        if (error.isDenied) {
          window.clearTimeout(this.#timer);
          this.#set({ is: "denied" });
        } else if (error.status !== 0) {
          this.#set({ ...this.#state, why: error.message });
        }
      },
    );
  }

  #hangUp(): void {
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #set(state: SessionState): void {
    this.#state = state;
    this.terminal.options.disableStdin = state.is !== "connected" && state.is !== "ended";
    this.#events.changed(this);
  }

  #typed(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#replaying > 0 || this.#state.is !== "connected") return;
    for (let at = 0; at < bytes.length; at += MAX_INPUT) {
      this.#socket?.send(bytes.subarray(at, at + MAX_INPUT));
    }
  }

  #key(event: KeyboardEvent): boolean {
    if (event.type !== "keydown") return true;
    if (this.#state.is === "ended" && event.key === "Enter") {
      event.preventDefault();
      this.#events.restart(this);
      return false;
    }
    if (event.key === "F6" && event.ctrlKey) {
      event.preventDefault();
      this.#events.leave();
      return false;
    }
    if (event.ctrlKey && event.shiftKey && event.code === "KeyC") {
      event.preventDefault();
      if (this.terminal.hasSelection()) copy(this.terminal.getSelection());
      return false;
    }
    // The browser pastes by itself.
    return !(event.ctrlKey && event.shiftKey && event.code === "KeyV");
  }

  #sendSize(): void {
    const size = this.size;
    if (this.#state.is !== "connected") return;
    if (this.#sentSize?.rows === size.rows && this.#sentSize.cols === size.cols) return;
    this.#sentSize = size;
    this.#send({ type: "resize", size });
  }

  #send(message: ClientMessage): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }
}

/** Without TLS there is no clipboard for scripts, but still the command that a menu would give: xterm answers that. */
function copy(text: string): void {
  const command = (): void => void document.execCommand("copy");
  if (navigator.clipboard) navigator.clipboard.writeText(text).catch(command);
  else command();
}
