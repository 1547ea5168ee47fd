"""The app behind what is measured, requests to it, and the CPU time that they cost."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from containers import run
from deployment import BenchError

# The sample's own app has 8000.
APP_PORT = 8099
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CURL_TIME_IS_OVER = 28
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}
# The app outlives the command that starts it, and goes with its gitspace.
START_APP = f"""cat >/tmp/bench-upstream && chmod 755 /tmp/bench-upstream &&
setsid -f /tmp/bench-upstream {APP_PORT} >/tmp/bench-upstream.log 2>&1 </dev/null && echo started"""


def compiled_app() -> bytes:
    return compiled("upstream.rs")


def compiled(source: str) -> bytes:
    """A program of this folder, as one static file."""
    with tempfile.TemporaryDirectory(prefix="gitspaces-bench-") as folder:
        file = Path(folder, "program")
        static = ["--target", "x86_64-unknown-linux-gnu", "-C", "target-feature=+crt-static"]
        optimised = ["-C", "opt-level=3", "-C", "panic=abort", "-C", "strip=symbols"]
        run(["rustc", "--edition", "2024", *static, *optimised, "-o", str(file), str(Path(__file__).parent / source)])
        return file.read_bytes()


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes, without that of their children."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


class Target:
    def __init__(self, name: str, url: str, pids: list[int], headers: dict[str, str]) -> None:
        self.name, self.url, self.pids = name, url, pids
        self.headers = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]

    def load(self, connections: int, seconds: float, path: str = "/small") -> dict[str, float]:
        """p50 and p99 in microseconds, requests a second, and CPU microseconds for each request. Of `/last`, each has a connection of its own."""
        before = cpu_s(self.pids)
        argv = ["wrk", "-t", str(min(2, connections)), "-c", str(connections), "-d", f"{seconds:g}s", "--latency"]
        text = run([*argv, *self.headers, f"{self.url}{path}"])
        spent = cpu_s(self.pids) - before
        requests = re.search(r"(\d+) requests in", text)
        if not requests or int(requests[1]) == 0 or "Non-2xx" in text or "Socket errors" in text:
            raise BenchError(f"{self.name}: not every answer was good:\n{text}")

        def rank(percent: int) -> float:
            found = re.search(rf"^\s+{percent}%\s+([\d.]+)([a-z]+)$", text, re.M)
            if not found:
                raise BenchError(f"wrk's output cannot be read:\n{text}")
            return float(found[1]) * UNITS[found[2]]

        count = int(requests[1])
        return {"p50": rank(50), "p99": rank(99), "rate": count / seconds, "cpu": spent * 1e6 / count}

    def stream_mbps(self, seconds: float | None = None) -> float:
        """Of one download of 1 GiB, or of as much of it as comes in so many seconds."""
        # By the address: nobody resolves the name, and a certificate is not what is measured.
        argv = ["curl", "-sS", "--insecure", "--fail", "-o", "/dev/null", "-w", "%{size_download} %{time_total}"]
        limit = [] if seconds is None else ["--max-time", f"{seconds:g}"]
        done = subprocess.run([*argv, *limit, *self.headers, f"{self.url}/large"], capture_output=True, text=True, timeout=300, check=False)
        if done.returncode and (seconds is None or done.returncode != CURL_TIME_IS_OVER):
            raise BenchError(f"{self.name}: the download failed: {done.stderr}")
        size, took = done.stdout.split()
        return float(size) * 8 / 1e6 / float(took)
