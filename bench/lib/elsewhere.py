"""A gitspace on a host that nobody connects to: a control plane and a gateway beside it, which reaches it by the delegate's tunnels alone."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, ContextManager, Iterator
from urllib.parse import urlsplit

from containers import run
from daemons import BINARIES, DaemonError, Daemons, Settings, build
from deployment import BenchError, Deployment
from figures import say
from load import APP_PORT, START_APP, Target, compiled_app
from ports import free_port, until_open

INSTALL = Path(__file__).resolve().parent.parent.parent / "packaging" / "lib" / "host.sh"


# What stands between the two: it listens at the port and leads to the address.
Line = Callable[[int, str], ContextManager[None]]


def settings(encrypted: bool, tunnel_port: int | None, git: str) -> dict[str, Settings]:
    """`tunnel_port`: where delegates reach the gateway, where that is not its own port."""
    scheme, host = ("https", "gitspaces.localhost") if encrypted else ("http", "localhost")
    url = f"{scheme}://{host}:{{gateway}}"
    gateway: Settings = {"runner_socket": "off", "public_url": url, "tunnel_url": f"{scheme}://localhost:{tunnel_port or '{gateway}'}"}
    delegate: Settings = {}
    if encrypted:
        gateway |= {"state_dir": "{root}/gateway", "tls": {"private_ca": True}}
        delegate["ca_file"] = "{root}/gateway/tls/authority.pem"
    return {"control_plane": {"gateway_url": url}, "gateway": gateway, "delegate": delegate, "runner": {"host_access": [git]}}


@contextlib.contextmanager
def gitspace(encrypted: bool, profile: str, line: Line | None = None) -> Iterator[tuple[Target, str, Daemons]]:
    """Requests to the app in it, with a grant; the app's own address, for peers; and the daemons. `line` is between delegate and gateway."""
    run(["bash", "-c", '. "$1" && install_packages curl wrk openssh-server', "bash", str(INSTALL)])
    repository = Deployment.sample_repository()
    port = free_port() if line else None
    daemons = Daemons(build(profile), "tunnel", settings(encrypted, port, urlsplit(repository).netloc))
    between = line(port, f"127.0.0.1:{daemons.gateway_port}") if line and port else contextlib.nullcontext()
    with contextlib.ExitStack() as stack:
        stack.callback(daemons.remove)
        stack.enter_context(between)
        daemons.start_all()
        os.environ |= {"GITSPACES_URL": daemons.url, "XDG_CONFIG_HOME": str(daemons.root / "cli")}
        os.environ.pop("GITSPACES_TOKEN_FILE", None)
        deployment = Deployment()
        stack.callback(deployment.clean_up)
        name = deployment.create(repository)["name"]
        deployment.wait(name, "running")
        address, agent = deployment.container(name)
        started = subprocess.run(
            ["docker", "exec", "--interactive", deployment.container_id(name), "sh", "-c", START_APP],
            input=compiled_app(), capture_output=True, check=False,
        )
        if started.returncode:
            raise BenchError(f"the app does not start: {started.stderr.decode(errors='replace')}")
        until_open("the app", (address, APP_PORT))
        grant = deployment.grant(name)
        site = urlsplit(grant["url"])
        headers = {"Host": f"{APP_PORT}--{site.netloc}", "gitspaces-grant": grant["grant"]}
        pids = [agent, *(daemons.running[daemon].pid for daemon in BINARIES if daemon != "control_plane")]
        url = f"{site.scheme}://127.0.0.1:{daemons.gateway_port}"
        yield Target("tunnel", url, pids, headers), f"{address}:{APP_PORT}", daemons


def main(description: str | None, benchmark: Callable[[int, str], None], rounds: int) -> None:
    """The command line of a benchmark: rounds that are counted, and the profile that the daemons are built with."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="that are counted (default: %(default)s)")
    parser.add_argument("--profile", default="release", help="of cargo (default: %(default)s)")
    arguments = parser.parse_args()
    # What was made is removed also when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        benchmark(arguments.rounds, arguments.profile)
    except KeyboardInterrupt:
        sys.exit(130)
    except (BenchError, DaemonError, OSError, subprocess.SubprocessError) as error:
        say(f"error: {error}")
        sys.exit(1)
