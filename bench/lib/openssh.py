"""OpenSSH's client, with what `gitspace config-ssh` writes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from deployment import BenchError, run


def command() -> str:
    """The `gitspace` of quickstart, or of the path."""
    home = Path(os.environ.get("GITSPACES_HOME", Path.home() / ".gitspaces"))
    found = shutil.which("gitspace", path=f"{home / 'bin'}:{os.environ['PATH']}")
    if found is None:
        raise BenchError("there is no `gitspace` command", "run ./quickstart first")
    return found


def ssh(config: Path, host: str, words: str) -> bytes:
    done = subprocess.run(["ssh", "-F", str(config), host, words], stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        raise BenchError(f"ssh {host} {words}: {done.stderr.decode(errors='replace')[-500:]}")
    return done.stdout


def config_ssh(folder: Path) -> Path:
    """A configuration with all gitspaces, `NAME.gitspace`."""
    config = folder / "config"
    run(command(), "config-ssh", "--file", str(config))
    return config
