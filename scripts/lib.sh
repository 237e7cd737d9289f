# Shared by the scripts beside it; sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# Where distributions put daemons, and an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

say() { printf '\n== %s\n' "$*"; }

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  [ -z "${2:-}" ] || printf '    remedy: %s\n' "$2" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else
    command -v sudo >/dev/null || die "this needs root, and there is no sudo" "run it as root"
    sudo "$@"
  fi
}

# need_packages NAME...: install what is missing of these distribution packages, after naming them.
need_packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing distribution packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null ||
    die "apt-get could not install: ${missing[*]}" "apt-get install ${missing[*]}"
}

# control_packages, lab_packages: what the control node and the lab need of the distribution, one name a line.
control_packages() {
  printf '%s\n' git openssh-client rsync
  local python
  python=$(find_python) && { "$python" -c 'import ensurepip' 2>/dev/null || echo python3-venv; }
}

# silicon_packages: what builds the played driver and the signed archives, for the lab and for the unit tests.
silicon_packages() { printf '%s\n' gcc libc6-dev gpg gpg-agent; }

# door_packages: the door itself, for its tests.
door_packages() { echo haproxy; }

# page_packages: the browser that the daemon's page is looked at with, in its tests; they are skipped where there is none.
page_packages() {
  # Ubuntu has it as a snap alone.
  if [ -n "$(apt-cache search --names-only '^chromium$')" ]; then echo chromium; fi
}

# fetch_promtool: put promtool and amtool into .cache/promtool, for the tests of rules. Their packages are unpacked and not
# installed, for that would start both.
fetch_promtool() {
  local place=.cache/promtool package
  { command -v promtool && command -v amtool; } >/dev/null && return 0
  [ -x "$place/usr/bin/promtool" ] && [ -x "$place/usr/bin/amtool" ] && return 0
  say "unpacking promtool and amtool from distribution packages: prometheus prometheus-alertmanager"
  rm -rf "$place" && mkdir -p "$place"
  for package in prometheus prometheus-alertmanager; do
    (cd "$place" && apt-get download -qq "$package" 2>/dev/null) ||
      { as_root apt-get update -qq && (cd "$place" && apt-get download -qq "$package" 2>/dev/null); } ||
      die "apt-get could not download $package" "apt-get download $package"
    dpkg-deb --extract "$place/$package"_*.deb "$place"
  done
  rm "$place"/*.deb
}

lab_packages() {
  printf '%s\n' mmdebstrap iptables
  # A Docker from elsewhere is left alone; Debian 13 has the command in a package of its own.
  command -v dockerd >/dev/null || echo docker.io
  if ! command -v docker >/dev/null && [ -n "$(apt-cache search --names-only '^docker-cli$')" ]; then echo docker-cli; fi
}

# find_python: print the Python to use, one of those that the locks are made for.
find_python() {
  local candidate
  for candidate in ${LLAMARIG_PYTHON:+"$LLAMARIG_PYTHON"} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

# make_venv SET: put the hash-locked requirements of SET (control or test) into .venv; nothing to do is nothing done.
make_venv() {
  local python version lock stamp
  python=$(find_python) || die "no Python 3.11, 3.12 or 3.13 found" "apt-get install python3, or set LLAMARIG_PYTHON"
  version=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
  lock=requirements/$1-py$version.txt
  stamp="$python $(sha256sum "$lock")"
  [ -f .venv/lock ] && [ "$(cat .venv/lock)" = "$stamp" ] && return 0
  # The test set holds the control set; whoever has it needs nothing more.
  [ "$1" = control ] && [ -f .venv/lock ] &&
    [ "$(cat .venv/lock)" = "$python $(sha256sum "requirements/test-py$version.txt")" ] && return 0
  say "installing $(grep -c '==' "$lock") Python packages from $lock into .venv"
  rm -f .venv/lock
  "$python" -m venv --clear .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement "$lock" ||
    die "pip could not install $lock" "check that pip reaches its package index: pip config list"
  printf '%s/src\n' "$root" >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/llamarig.pth"
  printf '#!%s/.venv/bin/python\nfrom llamarig.cli.main import main\n\nmain()\n' "$root" >.venv/bin/llamarig
  chmod +x .venv/bin/llamarig
  printf '%s' "$stamp" >.venv/lock
}
