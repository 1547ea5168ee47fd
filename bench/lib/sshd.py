"""sshd of this host on ports of its own, for one user with one key: what SSH costs without us."""

from __future__ import annotations

import getpass
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from deployment import BenchError, run

# sshd leaves a socket that it listens on; longer than that it does not start.
START_S = 10.0


class Sshd:
    """Two servers with the same keys: `direct`, and `jumped`, which is reached through the first by ProxyJump."""

    def __init__(self) -> None:
        self._binary = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        if self._binary is None:
            raise BenchError("there is no sshd on this host to compare with", "apt-get install openssh-server")
        self._folder = Path(tempfile.mkdtemp(prefix="bench-sshd-"))
        self._servers: list[subprocess.Popen[bytes]] = []
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / key))
        # It insists on it, and nothing is ever put there.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        ports = [self._start() for _ in range(2)]
        self.config = self._folder / "config"
        common = (
            f"  HostName 127.0.0.1\n  User {getpass.getuser()}\n  IdentityFile {self._folder}/user\n  IdentitiesOnly yes\n"
            f"  HostKeyAlias host\n  UserKnownHostsFile {self._folder}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
        )
        (self._folder / "known_hosts").write_text(f"host {(self._folder / 'host.pub').read_text()}")
        self.config.write_text(
            f"Host direct\n{common}  Port {ports[0]}\nHost jumped\n{common}  Port {ports[1]}\n  ProxyJump direct\n"
        )

    def _start(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = {
            "ListenAddress": f"127.0.0.1:{port}", "HostKey": self._folder / "host", "PidFile": "none", "UsePAM": "no", "StrictModes": "no",
            "AuthorizedKeysFile": self._folder / "user.pub", "PermitRootLogin": "prohibit-password", "MaxStartups": "100",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        log = (self._folder / f"{port}.log").open("wb")
        server = subprocess.Popen([self._binary, "-D", "-e", "-f", "/dev/null", *words], stderr=log, stdin=subprocess.DEVNULL)
        self._servers.append(server)
        until = time.monotonic() + START_S
        while time.monotonic() < until and server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return port
            time.sleep(0.02)
        raise BenchError(f"sshd does not start: {(self._folder / f'{port}.log').read_text()[-500:]}")

    def sessions(self) -> list[int]:
        """The processes of sshd's own that serve connections just now."""
        def children(pid: int) -> list[int]:
            own = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            return own + [grandchild for child in own for grandchild in children(child)]

        found = [child for server in self._servers for child in children(server.pid)]
        return [pid for pid in found if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd"]

    def clean_up(self) -> None:
        for server in self._servers:
            server.terminate()
            server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
