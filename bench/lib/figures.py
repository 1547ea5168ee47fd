"""Rounds, percentiles and the lines that are printed."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from typing import Callable

from deployment import BenchError
from websocket import WebSocketError

Timed = Callable[[], float]


def percentile(values: list[float], rank: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(rank / 100 * len(ordered)) - 1)]


def timed(work: Callable[[], bytes], expected: bytes) -> float:
    """Milliseconds until the work's first output, which has to hold what the command writes."""
    started = time.perf_counter()
    output = work()
    took = (time.perf_counter() - started) * 1000
    if expected not in output:
        raise BenchError(f"the command's output is {output[:200]!r}, without {expected!r}")
    return took


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interleave(rounds: int, variants: dict[str, Timed]) -> dict[str, list[float]]:
    """Takes every variant once a round, in turn. The round before the first warms caches and is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        line = {name: variant() for name, variant in variants.items()}
        shown = "  ".join(f"{name} {took:.0f} ms" for name, took in line.items())
        say(f"{'warm-up' if number == 0 else f'round {number} of {rounds}'}: {shown}")
        if number:
            for name, took in line.items():
                taken[name].append(took)
    return taken


def figure(name: str, values: list[float], baseline: list[float], rank: float, against: str, unit: str = "ms") -> None:
    value, base = percentile(values, rank), percentile(baseline, rank)
    print(json.dumps({
        "figure": name, "value": round(value, 2), "unit": unit, "baseline": round(base, 2),
        "ratio": round(value / base, 3), "against": against, "n": len(values),
    }), flush=True)


def main(description: str, benchmark: Callable[[str | None, int], None]) -> None:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("repository", nargs="?", help="Git URL; GITSPACES_SAMPLE_REPO, or quickstart's own, where missing")
    parser.add_argument("--rounds", type=int, default=11, help="counted rounds, 7 at least (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error("fewer than 7 rounds say nothing on a noisy host")
    # What was made is removed also when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        benchmark(arguments.repository, arguments.rounds)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BenchError, WebSocketError, OSError) as error:
        say(f"error: {error}")
        if hint := getattr(error, "hint", None):
            say(f"hint: {hint}")
        sys.exit(1)
