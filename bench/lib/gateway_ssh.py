"""OpenSSH's client at the gateway's SSH port, with a registered key."""

from __future__ import annotations

from pathlib import Path

from deployment import BenchError, Deployment, run


def at_the_gateway(deployment: Deployment, name: str, folder: Path) -> tuple[Path, str]:
    """A configuration with `terminating` and `jump`, and the id of the key that was registered for it."""
    key = folder / "key"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    made = deployment.call("POST", "/ssh-keys", {"name": "bench", "key": key.with_suffix(".pub").read_text().strip()})
    known = deployment.text("/ssh/known-hosts")
    (folder / "known_hosts").write_text(known)
    ports = [line.split("]:")[1].split()[0] for line in known.splitlines() if line.startswith("[localhost]:")]
    if not ports:
        raise BenchError("no gateway takes SSH", "set `ssh_listen` of the gateway")
    common = f"  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known_hosts\n  StrictHostKeyChecking yes\n  BatchMode yes\n"
    config = folder / "gateway-config"
    config.write_text(
        f"Host terminating\n  HostName localhost\n  Port {ports[0]}\n  User {name}\n{common}"
        f"Host jump\n  HostName {name}\n  ProxyJump gateway\n{common}"
        f"Host gateway\n  HostName localhost\n  Port {ports[0]}\n{common}"
    )
    return config, made["id"]
