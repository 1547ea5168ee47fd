"""The four daemons, each in a process of its own on loopback, built here, with a Docker that runs already."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ports import free_port

REPO = Path(__file__).resolve().parent.parent.parent
TRIPLE = "x86_64-unknown-linux-gnu"
BINARIES = {
    "control_plane": "gitspaces-control-plane",
    "runner": "runner-agent",
    "delegate": "delegate-agent",
    "gateway": "gitspaces-gateway",
}
# A daemon's settings; tables are in it as what they hold.
Settings = dict[str, object]


class DaemonError(Exception):
    pass


def toml(settings: Settings) -> str:
    """Its plain values first, then its tables."""
    tables = [name for name, value in settings.items() if isinstance(value, dict)]
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if name not in tables]
    for name in tables:
        table = settings[name]
        assert isinstance(table, dict)
        lines += [f"[{name}]", toml(table)]
    return "\n".join(lines) + "\n"


class Daemons:
    """The four of them, in a folder of their own. `more` has settings that a daemon has beside, or instead of, the usual ones; `{root}` in
    one is that folder, `{gateway}` the gateway's port."""

    def __init__(self, bin_dir: Path, name: str, more: dict[str, Settings] | None = None) -> None:
        self.bin = bin_dir
        self.name = name
        self.root = Path(tempfile.mkdtemp(prefix="gsb", dir="/tmp"))
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        control, self.gateway_port = free_port(), free_port()
        self.url = f"http://localhost:{control}"
        usual: dict[str, Settings] = {
            "control_plane": {
                "state_dir": "{root}/control-plane", "listen": f"127.0.0.1:{control}", "public_url": self.url,
                "gateway_url": "http://localhost:{gateway}", "admin_socket": "{root}/control_plane.sock",
            },
            "runner": {
                "api_socket": "{root}/api.sock", "admin_socket": "{root}/runner.sock", "state_dir": "{root}/runner", "run_dir": "{root}/gs",
                "deployment": f"{name}-{self.root.name}", "agent_binary": f"{self.bin}/gitspace-agent",
            },
            "delegate": {
                "control_plane_url": self.url, "name": name, "state_dir": "{root}/delegate",
                "runner_socket": "{root}/api.sock", "admin_socket": "{root}/delegate.sock",
            },
            "gateway": {
                "control_plane_url": self.url, "listen": "127.0.0.1:{gateway}", "public_url": "http://localhost:{gateway}",
                "runner_socket": "{root}/api.sock", "admin_socket": "{root}/gateway.sock",
            },
        }
        for daemon, settings in usual.items():
            text = toml(settings | (more or {}).get(daemon, {}))
            text = text.replace("{root}", str(self.root)).replace("{gateway}", str(self.gateway_port))
            (self.root / f"{daemon}.toml").write_text(text)

    def start(self, daemon: str) -> float:
        """Milliseconds from the start to READY."""
        path = self.root / f"{daemon}.notify"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, open(self.root / f"{daemon}.log", "ab") as log:
            notify.bind(str(path))
            notify.settimeout(60)
            started = time.perf_counter()
            self.running[daemon] = subprocess.Popen(
                [self.bin / BINARIES[daemon], "--config", self.root / f"{daemon}.toml"],
                env={
                    "PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(path),
                    "CREDENTIALS_DIRECTORY": str(self.root / "credentials"), "GITSPACES_LOG": "warn",
                },
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
            while True:
                try:
                    told = notify.recv(4096)
                except TimeoutError as error:
                    raise DaemonError(f"{daemon} is not ready: {(self.root / f'{daemon}.log').read_text()[-2000:]}") from error
                if b"READY=1" in told.split(b"\n"):
                    return (time.perf_counter() - started) * 1000

    def stop(self, daemon: str) -> None:
        process = self.running.pop(daemon)
        process.terminate()
        process.wait(30)

    def cli(self, *arguments: str) -> str:
        environment = {**os.environ, "XDG_CONFIG_HOME": str(self.root / "cli"), "GITSPACES_URL": self.url}
        done = subprocess.run([self.bin / "gitspace", *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise DaemonError(f"gitspace {' '.join(arguments)}: {done.stderr}")
        return done.stdout.strip()

    def until_healthy(self, daemon: str) -> None:
        end = time.monotonic() + 60
        while True:
            done = subprocess.run(
                [self.bin / BINARIES[daemon], "--config", self.root / f"{daemon}.toml", "health"],
                capture_output=True, text=True, check=False,
            )
            if done.returncode == 0:
                return
            if time.monotonic() > end:
                raise DaemonError(f"{daemon} is not healthy: {done.stdout}{done.stderr}")
            time.sleep(0.2)

    def start_all(self) -> None:
        credentials = self.root / "credentials"
        credentials.mkdir()
        self.start("control_plane")
        self.cli("login", "--url", self.url, "--token-file", str(self.root / "control-plane/admin-token"))
        self.start("runner")
        token = self.root / "join-token"
        token.write_text(self.cli("join-token", "create"))
        subprocess.run(
            [self.bin / "delegate-agent", "--config", self.root / "delegate.toml", "enroll", "--join-token-file", token],
            check=True, capture_output=True,
        )
        (credentials / "gateway-token").write_text(self.cli("gateway", "register", self.name))
        # It may make the authority that the delegate trusts.
        self.start("gateway")
        self.start("delegate")
        for daemon in BINARIES:
            self.until_healthy(daemon)

    def remove(self) -> None:
        for daemon in [*self.running]:
            self.stop(daemon)
        subprocess.run(
            [self.bin / "runner-agent", "--config", self.root / "runner.toml", "purge", "--yes"], capture_output=True, check=False,
        )
        shutil.rmtree(self.root, ignore_errors=True)


def build(profile: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gitspaces"
    target = Path(os.environ.get("CARGO_TARGET_DIR", cache / "target"))
    packages = [argument for name in [*BINARIES.values(), "gitspace-agent", "gitspace"] for argument in ("-p", name)]
    print(f"building ({profile})", file=sys.stderr, flush=True)
    subprocess.run(
        ["cargo", "build", "--quiet", "--locked", "--profile", profile, *packages],
        cwd=REPO, env={**os.environ, "CARGO_TARGET_DIR": str(target)}, check=True,
    )
    return target / TRIPLE / profile
