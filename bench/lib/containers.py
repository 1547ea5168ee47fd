"""What the figures are compared with: plain Docker, and the reference CLI of dev containers. All of it is removed again."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from deployment import BenchError

CLI_PACKAGE = "@devcontainers/cli"
CLI_VERSION = "0.89.0"
# Owner of the reference CLI's clone: the default image's user, who has to write there.
WORKSPACE_UID = 1000
TIMEOUT_S = 120.0


def run(argv: list[str], timeout: float = TIMEOUT_S, **options: Any) -> str:
    """A command's standard output; what it says on standard error is the reason where it fails."""
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=timeout, **options)
    except FileNotFoundError as error:
        raise BenchError(f"there is no {argv[0]} command") from error
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{' '.join(argv)}: no end after {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "").strip()[-600:]
        raise BenchError(f"{' '.join(argv)}: exit code {error.returncode}: {last}") from error
    return done.stdout


def first_output(argv: list[str]) -> bytes:
    """Starts a command and returns at its first output; `finish` waits for its end, which is not timed."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _RUNNING.append(process)
    assert process.stdout
    if first := os.read(process.stdout.fileno(), 64 << 10):
        return first
    _, errors = process.communicate(timeout=TIMEOUT_S)
    raise BenchError(f"{' '.join(argv)} wrote nothing: {errors.decode(errors='replace').strip()[-600:]}")


_RUNNING: list[subprocess.Popen[bytes]] = []


def finish() -> None:
    """Waits for the commands whose first output was taken, so that they do not slow what comes next."""
    while _RUNNING:
        process = _RUNNING.pop()
        try:
            process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Baselines:
    """Containers of one run, all under one label."""

    def __init__(self, image: str, repository: str) -> None:
        self.image = image
        self.repository = repository
        self._label = f"gitspaces-bench={uuid.uuid4().hex[:8]}"
        self._folder = Path(tempfile.mkdtemp(prefix="gitspaces-bench-"))

    def docker_run(self, script: str) -> bytes:
        """The floor: one container that clones and runs the command, without network, volume or user of its own."""
        clone = f'git clone -q "$1" /tmp/clone && cd /tmp/clone && {script}'
        return first_output(["docker", "run", "--rm", "--label", self._label, "--entrypoint", "sh", self.image, "-c", clone, "sh", self.repository])

    def stopped_container(self) -> str:
        """A container as resume's baseline needs it: made, run once, and stopped."""
        script = 'trap "exit 0" TERM; while :; do sleep 3600 & wait; done'
        container = run(["docker", "run", "-d", "--label", self._label, "--entrypoint", "sh", self.image, "-c", script]).strip()
        run(["docker", "exec", container, "git", "clone", "-q", self.repository, "/tmp/clone"])
        run(["docker", "stop", container])
        return container

    def docker_start(self, container: str, script: str) -> bytes:
        run(["docker", "start", container])
        return first_output(["docker", "exec", container, "sh", "-c", script])

    def docker_stop(self, container: str) -> None:
        finish()
        run(["docker", "stop", container])

    def clone(self) -> Path:
        """A clone on the host, as the reference CLI wants it. Timed by the caller."""
        clone = self._folder / uuid.uuid4().hex[:8]
        run(["git", "clone", "-q", self.repository, str(clone)])
        return clone

    def prepare(self, clone: Path) -> list[str]:
        """Not timed: hands the clone to the image's user, and gives an image to a configuration that names none."""
        run(["chown", "-R", f"{WORKSPACE_UID}:{WORKSPACE_UID}", str(clone)])
        for place in (".devcontainer/devcontainer.json", ".devcontainer.json"):
            file = clone / place
            if file.is_file():
                configuration = json.loads(without_comments(file.read_text()))
                break
        else:
            configuration = {}
        if not {"image", "build", "dockerFile", "dockerComposeFile"} & configuration.keys():
            configuration["image"] = self.image
        # The clone is the user's already: without this the CLI would build an image for each clone, and lose a second.
        configuration.setdefault("updateRemoteUserUID", False)
        override = self._folder / f"{clone.name}.json"
        override.write_text(json.dumps(configuration))
        return ["--workspace-folder", str(clone), "--override-config", str(override), "--id-label", f"gitspaces-bench-clone={clone.name}"]

    def devcontainer(self, options: list[str], argv: list[str]) -> bytes:
        cli = reference_cli()
        run([cli, "up", *options])
        return first_output([cli, "exec", *options, *argv])

    def remove_devcontainer(self, clone: Path) -> None:
        finish()
        self._remove_clone(clone.name)
        shutil.rmtree(clone, ignore_errors=True)

    def clean_up(self) -> None:
        finish()
        self._remove(self._label)
        for clone in self._folder.glob("*.json"):
            self._remove_clone(clone.stem)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _remove_clone(self, name: str) -> None:
        self._remove(f"gitspaces-bench-clone={name}")
        # A configuration with a Dockerfile has made one, named after the folder.
        images = run(["docker", "images", "-q", "--filter", f"reference=vsc-{name}-*"]).split()
        if images:
            run(["docker", "rmi", *images])

    def _remove(self, label: str) -> None:
        found = run(["docker", "ps", "-aq", "--filter", f"label={label}"]).split()
        if found:
            run(["docker", "rm", "-f", "-v", *found])


def reference_cli() -> str:
    """The reference CLI's program, installed into the cache the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gitspaces" / "bench" / f"devcontainers-cli-{CLI_VERSION}"
    program = cache / "node_modules" / ".bin" / "devcontainer"
    if not program.exists():
        cache.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix", str(cache), f"{CLI_PACKAGE}@{CLI_VERSION}"])
    return str(program)


def without_comments(text: str) -> str:
    """JSON with comments and trailing commas, as plain JSON."""
    token = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
    text = token.sub(lambda match: match.group(1) or " ", text)
    comma = re.compile(r'("(?:\\.|[^"\\])*")|,(\s*[}\]])', re.DOTALL)
    return comma.sub(lambda match: match.group(1) or match.group(2), text)
