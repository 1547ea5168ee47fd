"""A line with a delay and a rate, between two programs of this host."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from load import compiled
from ports import until_open


@contextlib.contextmanager
def line(port: int, to: str, one_way_ms: int, mbit_per_s: int) -> Iterator[None]:
    """Whoever connects to `port` has `to` at its other end."""
    with tempfile.TemporaryDirectory(prefix="gitspaces-bench-") as folder:
        program = Path(folder, "line")
        program.write_bytes(compiled("line.rs"))
        program.chmod(0o755)
        process = subprocess.Popen([program, str(port), to, str(one_way_ms), str(mbit_per_s)], start_new_session=True)
        try:
            until_open("the line", ("127.0.0.1", port))
            yield
        finally:
            process.terminate()
            process.wait(10)
