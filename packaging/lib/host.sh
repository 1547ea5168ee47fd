# Sourced by `quickstart` and `test`: what both need of a Debian host. Defines functions only.

say() { printf '%s\n' "$*" >&2; }
step() { printf '==> %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 has to run as root: it drives Docker and the firewall" "run it with sudo"
}

# install PACKAGE...: installs those that are missing, and touches nothing where none is.
install_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing packages: ${missing[*]}, and there is no apt-get" "this works on Debian 12"
  step "installing ${missing[*]}"
  apt-get -qq update >&2 || die "apt-get update failed" "see its output above"
  # policy-rc.d is not touched: where no service manager runs, nothing is started by the installation.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
    die "could not install ${missing[*]}" "see apt-get's output above"
}

need_rust() {
  command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
  command -v cargo >/dev/null || die "cargo is not installed" "install Rust 1.95 or later with rustup"
}

# alive PIDFILE EXE: whether the process of that file still runs that program (a pid is used again by others).
alive() {
  local pid exe
  pid=$(cat "$1" 2>/dev/null) || return 1
  exe=$(readlink "/proc/$pid/exe" 2>/dev/null) || return 1
  [ "${exe% (deleted)}" = "$(readlink -f "$2" 2>/dev/null || printf %s "$2")" ]
}

# stop_process PIDFILE EXE SECONDS: SIGTERM, then SIGKILL when it takes longer.
stop_process() {
  local pid tenth
  if alive "$1" "$2"; then
    pid=$(cat "$1")
    kill -TERM "$pid" 2>/dev/null || true
    for ((tenth = 0; tenth < $3 * 10; tenth++)); do
      alive "$1" "$2" || break
      sleep 0.1
    done
    if alive "$1" "$2"; then
      say "process $pid ($2) did not stop in $3 s: killed"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  rm -f "$1"
}

# wait_for SECONDS WHAT LOG COMMAND...: until the command works.
wait_for() {
  local limit=$1 what=$2 log=$3 tenth
  shift 3
  for ((tenth = 0; tenth < limit * 10; tenth++)); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.1
  done
  [ -z "$log" ] || tail -n 20 "$log" >&2
  die "$what did not come up in $limit s" "${log:+the end of $log is above}"
}

# docker_up STATE: Docker answers; where none does, one is started and its pid kept in STATE.
docker_up() {
  docker version >/dev/null 2>&1 && return 0
  mkdir -p "$1"
  if [ -d /run/systemd/system ]; then
    step "starting Docker"
    systemctl start docker || die "Docker does not start" "see: journalctl -u docker"
  else
    command -v dockerd >/dev/null || die "dockerd is not installed"
    step "starting dockerd (no service manager does it here)"
    # A pid file of a dead daemon stops the next one from starting.
    [ -e "/proc/$(cat /var/run/docker.pid 2>/dev/null || echo none)" ] || rm -f /var/run/docker.pid
    setsid dockerd >"$1/dockerd.log" 2>&1 </dev/null &
    echo $! >"$1/dockerd.pid"
  fi
  wait_for 60 "Docker" "$1/dockerd.log" docker version
}

docker_down() {
  stop_process "$1/dockerd.pid" "$(command -v dockerd || echo dockerd)" 30
}

# The address at which containers reach this host. Asked of the interface: Docker tells its own only after a restart.
docker_host_address() {
  local address
  address=$(ip -4 -o address show docker0 | awk '{ split($4, part, "/"); print part[1]; exit }')
  [ -n "$address" ] || die "docker0 has no IPv4 address" "is Docker's default bridge turned off?"
  printf '%s\n' "$address"
}
