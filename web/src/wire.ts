// The workspace service's wire, as crates/wire/src/workspace.rs defines it: the part that a terminal page speaks.

export interface Size {
  readonly rows: number;
  readonly cols: number;
}

export interface TerminalInfo {
  readonly id: string;
  readonly title: string;
  readonly started: string;
  readonly attached: number;
}

export interface ListeningPort {
  readonly port: number;
  readonly address: string;
  readonly process?: string;
  readonly pid?: number;
  readonly forwarded: boolean;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
}

export type ClientMessage =
  | { readonly type: "attach"; readonly from: number | null; readonly size: Size }
  | { readonly type: "resize"; readonly size: Size };

export type ServerMessage =
  | { readonly type: "attached"; readonly position: number; readonly snapshot: boolean; readonly size: Size }
  | { readonly type: "exited"; readonly exit_code: number }
  | { readonly type: "failed"; readonly failure: Failure };

/** Input is cut into messages of at most this many bytes. */
export const MAX_INPUT = 16 * 1024;

/** A server's text message, or null where it is none of those this page knows. */
export function parseServerMessage(text: string): ServerMessage | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(value)) return null;
  switch (value["type"]) {
    case "attached":
      return isCount(value["position"]) && typeof value["snapshot"] === "boolean" && isRecord(value["size"])
        ? (value as unknown as ServerMessage)
        : null;
    case "exited":
      return Number.isInteger(value["exit_code"]) ? (value as unknown as ServerMessage) : null;
    case "failed":
      return isRecord(value["failure"]) && typeof value["failure"]["message"] === "string"
        ? (value as unknown as ServerMessage)
        : null;
    default:
      return null;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
