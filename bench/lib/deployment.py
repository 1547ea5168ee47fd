"""A running deployment, as a program that uses its API sees it: actions, the timeline's events, exec through the gateway."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tomllib
import uuid
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import quote, urlsplit

from websocket import WebSocket, WebSocketError, dial

# Of a program's input that goes into a gitspace.
INPUT_MESSAGE = 64 << 10
# Longest wait for anything: a gitspace's every phase is shorter than this on a host that works.
TIMEOUT_S = 120.0


class BenchError(Exception):
    """What failed and why; `hint` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def access_token() -> str:
    """The one in GITSPACES_TOKEN_FILE, or the one that `gitspace login` keeps."""
    named = os.environ.get("GITSPACES_TOKEN_FILE")
    config = Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config"))
    path = Path(named) if named else config / "gitspaces" / "cli.toml"
    try:
        text = path.read_text()
        return text.strip() if named else tomllib.loads(text)["token"]
    except (OSError, KeyError, tomllib.TOMLDecodeError) as error:
        raise BenchError(
            f"cannot read the access token in {path}: {error}",
            "run ./quickstart first, or set GITSPACES_URL and GITSPACES_TOKEN_FILE",
        ) from error


class Deployment:
    def __init__(self) -> None:
        home = Path(os.environ.get("GITSPACES_HOME", Path.home() / ".gitspaces"))
        self._run = home / "run"
        base = os.environ.get("GITSPACES_PORT_BASE", "7070")
        self.url = os.environ.get("GITSPACES_URL", f"http://localhost:{base}").rstrip("/")
        self._token = access_token()
        self._connection: http.client.HTTPConnection | None = None
        self._made: set[str] = set()
        # Last event of each gitspace's timeline that was read.
        self._seen: dict[str, int] = {}

    @staticmethod
    def sample_repository() -> str:
        """The repository that quickstart serves, at the address that containers reach this host by."""
        named = os.environ.get("GITSPACES_SAMPLE_REPO")
        if named:
            return named
        # Asked of the interface, as quickstart does: Docker tells its own only after a restart.
        shown = run("ip", "-4", "-j", "address", "show", "docker0")
        host = next((address["local"] for link in json.loads(shown) for address in link.get("addr_info", [])), None)
        if host is None:
            raise BenchError("docker0 has no IPv4 address", "name a repository, or set GITSPACES_SAMPLE_REPO")
        base = int(os.environ.get("GITSPACES_PORT_BASE", "7070"))
        return f"http://{host}:{base + 20}/sample.git"

    def create(self, repository: str) -> dict[str, Any]:
        name = f"bench-{uuid.uuid4().hex[:8]}"
        # Before the request: an answer that is lost must not leave a gitspace behind.
        self._made.add(name)
        return self.call("POST", "/gitspaces", {"repo": {"url": repository}, "name": name})

    def show(self, name: str) -> dict[str, Any]:
        return self.call("GET", f"/gitspaces/{quote(name)}")

    def act(self, name: str, action: str) -> None:
        self.call("POST", f"/gitspaces/{quote(name)}/actions", {"action": action})

    def delete(self, name: str) -> None:
        """Deletes it and waits until nothing is left of it."""
        try:
            self.call("DELETE", f"/gitspaces/{quote(name)}")
            self.wait(name, "deleted")
        except NotFound:
            pass
        self._made.discard(name)

    def clean_up(self) -> None:
        for name in sorted(self._made):
            self.delete(name)
        self._hang_up()

    def wait(self, name: str, state: str) -> None:
        """Follows the timeline, from where it was last read, until the gitspace is in a state. Nothing is polled."""
        reason = "the stream of events ended"
        for event in self._events(name):
            self._seen[name] = event["id"]
            if event["state"] == state:
                return
            if event.get("failure"):
                reason = event["failure"]["message"]
            if event["state"] == "error":
                break
        else:
            # The stream of a gitspace that is gone ends.
            if state == "deleted":
                return
        raise BenchError(f"{name} did not become {state}: {reason}", f"gitspace events {name}")

    def grant(self, name: str) -> dict[str, Any]:
        return self.call("POST", f"/gitspaces/{quote(name)}/grants", {})

    def container_id(self, name: str) -> str:
        labels = [f"label=gitspaces.gitspace={self.show(name)['id']}", "label=gitspaces.role=dev-container"]
        found = run("docker", "ps", "-q", *(word for label in labels for word in ("--filter", label))).split()
        if len(found) != 1:
            raise BenchError(f"{name} has {len(found)} dev containers on this host", "run it where the gitspace's runner runs")
        return found[0]

    def container(self, name: str) -> tuple[str, int]:
        """A gitspace's dev container: its address in its network, and the process id of the gitspace-agent in it."""
        place = "{{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        pid, address = run("docker", "inspect", "--format", place, self.container_id(name)).split()
        return address, program(int(pid), "gitspace-agent")

    def daemons(self) -> list[int]:
        """The process ids of the daemons that quickstart started."""
        pids = []
        for name in ("delegate-agent", "runner-agent"):
            file = self._run / f"{name}.pid"
            try:
                pids.append(program(int(file.read_text()), name))
            except (OSError, ValueError) as error:
                raise BenchError(f"cannot read the process id in {file}: {error}", "run ./quickstart on this host first") from error
        return pids

    def first_output(self, name: str, argv: list[str], given: bytes = b"") -> bytes:
        """Runs a command in a gitspace through the gateway, and returns its first output. `given` is its whole input."""
        grant = self.grant(name)
        headers = {"gitspaces-grant": grant["grant"]}
        with WebSocket(grant["url"], "/api/v1/exec", headers, TIMEOUT_S) as exec_socket:
            exec_socket.send_text(json.dumps({"type": "exec", "argv": argv}))
            for at in range(0, len(given), INPUT_MESSAGE):
                exec_socket.send_binary(given[at:at + INPUT_MESSAGE])
            exec_socket.send_text(json.dumps({"type": "eof"}))
            errors = b""
            while (message := exec_socket.receive()) is not None:
                if isinstance(message, str):
                    raise BenchError(f"{argv} in {name} wrote nothing: {message} {errors!r}")
                if message[:1] == b"\x01":
                    return message[1:]
                errors += message[1:]
        raise BenchError(f"{argv} in {name} wrote nothing: the gateway closed the connection")

    def _events(self, name: str) -> Iterator[dict[str, Any]]:
        after = self._seen.get(name, 0)
        connection, host = dial(self.url, TIMEOUT_S)
        with connection:
            request = (
                f"GET {self._path(f'/gitspaces/{quote(name)}/events?after={after}')} HTTP/1.0\r\nHost: {host}\r\n"
                f"Authorization: Bearer {self._token}\r\nAccept: text/event-stream\r\n\r\n"
            )
            connection.sendall(request.encode())
            # HTTP/1.0: the body is not in chunks.
            response = connection.makefile("rb")
            status = response.readline().split()
            if status[1:2] == [b"404"]:
                raise NotFound(f"there is no gitspace {name}")
            if status[1:2] != [b"200"]:
                raise BenchError(f"the events of {name}: the control plane answered {status!r}")
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def text(self, path: str) -> str:
        """What is at `path`, which is no JSON."""
        response = self._answer("GET", path, None, {"Authorization": f"Bearer {self._token}"})
        answer = response.read().decode()
        if response.status != 200:
            raise BenchError(f"GET {path} was answered {response.status}: {answer[:500]}")
        return answer

    def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if method == "POST":
            headers |= {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        text = None if body is None else json.dumps(body)
        reused = self._connection is not None
        try:
            try:
                response = self._answer(method, path, text, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not reused:
                    raise
                # It was idle for longer than the server keeps one. Every call may be made twice: POST has its key.
                self._hang_up()
                response = self._answer(method, path, text, headers)
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._hang_up()
            raise BenchError(f"{method} {self.url}{path}: {error}", "is the deployment running? ./quickstart") from error
        if status == 404:
            raise NotFound(f"{method} {path}: not found")
        if status >= 300:
            raise BenchError(f"{method} {path} was answered {status}: {answer.decode(errors='replace')[:500]}")
        return json.loads(answer) if answer else None

    def _answer(self, method: str, path: str, text: str | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            parts = urlsplit(self.url)
            kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
            connection = kind(parts.netloc, timeout=TIMEOUT_S)
            connection.connect()
            self._connection = connection
        self._connection.request(method, self._path(path), text, headers)
        return self._connection.getresponse()

    def _hang_up(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _path(self, path: str) -> str:
        return f"{urlsplit(self.url).path}/api/v1{path}"


class NotFound(BenchError):
    pass


def run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip()[-600:]}")
    return done.stdout


def program(pid: int, name: str) -> int:
    """The process id, where that process is the program: what a stranger uses must not be counted."""
    try:
        running = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError as error:
        raise BenchError(f"{name} does not run: there is no process {pid}", "./quickstart starts it") from error
    if running != name:
        raise BenchError(f"process {pid} is {running}, not {name}", "./quickstart starts it")
    return pid


__all__ = ["BenchError", "Deployment", "NotFound", "WebSocketError"]
