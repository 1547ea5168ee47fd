"""What our tunnels are compared with: rathole, bore and `ssh -R`, each with both of its ends on this host, in front of one port."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from containers import run
from deployment import BenchError
from load import Target
from ports import free_port, until_open
from sshd import Sshd

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gitspaces" / "bench" / "cargo"
INSTALL_LIMIT_S = 1800.0
# Without OpenSSL, which is no part of what is measured. Its lock file is of an older compiler.
RATHOLE = ["rathole@0.5.0", "--no-default-features", "--features", "client,server,noise"]
BORE = ["bore-cli@0.6.0", "--locked"]
# It has one port to be told to, and no option for it.
BORE_CONTROL_PORT = 7835


def installed(name: str, package: list[str]) -> str:
    """Built once, from crates.io."""
    binary = CACHE / "bin" / name
    if not binary.exists():
        run(["cargo", "install", "--quiet", "--root", str(CACHE), *package], timeout=INSTALL_LIMIT_S)
    return str(binary)


@contextlib.contextmanager
def running(*argvs: list[str]) -> Iterator[list[int]]:
    """Each in a session of its own, as daemons are."""
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryFile() as log:
        try:
            for argv in argvs:
                process = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                processes.append(process)
            yield [process.pid for process in processes]
        except BenchError as error:
            log.seek(0)
            raise BenchError(f"{error}: {log.read()[-1000:].decode(errors='replace')}") from error
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(10)


@contextlib.contextmanager
def rathole(upstream: str, transport: str) -> Iterator[Target]:
    """`transport`: `tcp`, or `noise`, which is encrypted."""
    binary = installed("rathole", RATHOLE)
    control, port = free_port(), free_port()
    server_noise = client_noise = ""
    if transport == "noise":
        words = run([binary, "--genkey"]).split()
        private, public = words[words.index("Private") + 2], words[words.index("Public") + 2]
        server_noise = f'[server.transport]\ntype = "noise"\n[server.transport.noise]\nlocal_private_key = "{private}"\n'
        client_noise = f'[client.transport]\ntype = "noise"\n[client.transport.noise]\nremote_public_key = "{public}"\n'
    with tempfile.TemporaryDirectory(prefix="gitspaces-bench-") as folder:
        server, client = Path(folder, "server.toml"), Path(folder, "client.toml")
        server.write_text(
            f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n{server_noise}'
            f'[server.services.app]\nbind_addr = "127.0.0.1:{port}"\n'
        )
        client.write_text(
            f'[client]\nremote_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n{client_noise}'
            f'[client.services.app]\nlocal_addr = "{upstream}"\n'
        )
        with running([binary, "--server", str(server)], [binary, "--client", str(client)]) as pids:
            until_open("rathole", ("127.0.0.1", port))
            yield Target(f"rathole-{transport}", f"http://127.0.0.1:{port}", pids, {})


@contextlib.contextmanager
def bore(upstream: str) -> Iterator[Target]:
    """It encrypts nothing."""
    binary = installed("bore", BORE)
    host, app_port = upstream.split(":")
    port = free_port()
    server = [binary, "server", "--bind-addr", "127.0.0.1", "--min-port", "1024"]
    with running(server) as server_pids:
        until_open("bore's server", ("127.0.0.1", BORE_CONTROL_PORT))
        local = [binary, "local", app_port, "--local-host", host, "--to", "127.0.0.1", "--port", str(port)]
        with running(local) as pids:
            until_open("bore", ("127.0.0.1", port))
            yield Target("bore", f"http://127.0.0.1:{port}", [*server_pids, *pids], {})


@contextlib.contextmanager
def ssh_remote_forward(upstream: str) -> Iterator[Target]:
    """OpenSSH's `-R`, encrypted, over one connection. The process of sshd that serves it is found by its parent."""
    sshd = Sshd()
    try:
        port = free_port()
        client = ["ssh", "-F", str(sshd.config), "-N", "-o", "ExitOnForwardFailure=yes", "-R", f"127.0.0.1:{port}:{upstream}", "direct"]
        with running(client) as pids:
            until_open("ssh -R", ("127.0.0.1", port))
            yield Target("ssh-R", f"http://127.0.0.1:{port}", [*pids, *sshd.sessions()], {})
    finally:
        sshd.clean_up()
