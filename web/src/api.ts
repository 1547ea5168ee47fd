// The workspace service's HTTP requests.

import type { ListeningPort, TerminalInfo } from "./wire";
import type { Size } from "./wire";

/** Longest wait for an answer. */
const TIMEOUT_MS = 15_000;

/** Why a request did not work: a status of the gateway or the agent, or no answer at all (status 0). */
export class RequestError extends Error {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.name = "RequestError";
    this.status = status;
  }

  /** The grant is gone: only a new sign-in helps. */
  get isDenied(): boolean {
    return this.status === 401 || this.status === 403;
  }
}

export function listTerminals(): Promise<TerminalInfo[]> {
  return request("GET", "/api/v1/terminals");
}

export function createTerminal(size: Size): Promise<TerminalInfo> {
  return request("POST", "/api/v1/terminals", { size });
}

export async function closeTerminal(id: string): Promise<void> {
  try {
    await request("DELETE", `/api/v1/terminals/${encodeURIComponent(id)}`);
  } catch (error) {
    // It ended by itself.
    if (!(error instanceof RequestError) || error.status !== 404) throw error;
  }
}

export function listPorts(): Promise<ListeningPort[]> {
  return request("GET", "/api/v1/ports");
}

export function attachUrl(id: string): string {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/api/v1/terminals/${encodeURIComponent(id)}/attach`;
}

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      // A redirect leads to a sign-in page, which is no answer to a program.
      redirect: "manual",
      credentials: "same-origin",
      cache: "no-store",
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (error) {
    throw new RequestError(error instanceof Error && error.name === "TimeoutError" ? "no answer in time" : "no connection", 0);
  }
  if (response.type === "opaqueredirect") throw new RequestError("access has expired", 401);
  if (!response.ok) throw new RequestError(await reason(response), response.status);
  if (response.status === 204) return undefined as T;
  try {
    return (await response.json()) as T;
  } catch {
    throw new RequestError("the answer is not JSON", response.status);
  }
}

/** What a problem document says, else the status. */
async function reason(response: Response): Promise<string> {
  const fallback = `${response.status} ${response.statusText}`.trim();
  try {
    const problem: unknown = await response.json();
    if (typeof problem === "object" && problem !== null) {
      for (const key of ["message", "detail", "title"]) {
        const value = (problem as Record<string, unknown>)[key];
        if (typeof value === "string" && value !== "") return value;
      }
    }
  } catch {
    // Not JSON: the status has to do.
  }
  return fallback;
}
