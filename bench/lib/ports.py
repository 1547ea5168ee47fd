"""Ports of this host."""

from __future__ import annotations

import socket
import time

from deployment import BenchError

START_LIMIT_S = 10.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_open(what: str, address: tuple[str, int]) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        try:
            socket.create_connection(address, 1).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise BenchError(f"{what} does not listen at {address[0]}:{address[1]} after {START_LIMIT_S:.0f} s: {error}") from error
            time.sleep(0.02)
