// How long to wait before dialling again. Pure: randomness and time are arguments.

const FIRST_MS = 500;
const CAP_MS = 15_000;
/** A connection that held this long starts the count anew. */
const QUIET_MS = 30_000;

export class Backoff {
  #attempt = 0;
  #connectedAt: number | null = null;

  connected(now: number): void {
    this.#connectedAt = now;
  }

  /** Milliseconds until the next attempt: between half and all of a limit that doubles. */
  next(now: number, random: number): number {
    if (this.#connectedAt !== null && now - this.#connectedAt >= QUIET_MS) this.#attempt = 0;
    this.#connectedAt = null;
    const limit = Math.min(CAP_MS, FIRST_MS * 2 ** this.#attempt);
    this.#attempt = Math.min(this.#attempt + 1, 16);
    return Math.round(limit / 2 + (random * limit) / 2);
  }

  /** The user asks for it at once. */
  reset(): void {
    this.#attempt = 0;
  }
}
