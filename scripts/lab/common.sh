# shellcheck shell=bash
# Sourced by the lab's scripts: LAB_DIR, locks, processes, the network namespace, the guest image.
set -euo pipefail
LAB=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/siphon-lab}
export PATH=$PATH:/usr/sbin:/sbin LC_ALL=C

die() { echo "lab: $*" >&2; exit 1; }
skip() { echo "skipped: $*" >&2; exit 77; }

# --- LAB_DIR

lab_make() { # for `up`. The mark .made allows `down` to remove the directory itself, not only what the bed put there.
  if [ -z "${LAB_DIR:-}" ]; then
    LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/lab.XXXXXX")
    : >"$LAB_DIR/.made"
  else
    LAB_DIR=$(realpath -m "$LAB_DIR")
    [ -d "$LAB_DIR" ] || { mkdir -p "$LAB_DIR"; : >"$LAB_DIR/.made"; }
  fi
  # the path of a unix socket has at most 107 bytes, and about 35 are ours
  [ ${#LAB_DIR} -le 70 ] || die "LAB_DIR is longer than 70 characters: $LAB_DIR"
  # it goes unquoted into ssh_config, ceph.conf and the guest's command line
  case $LAB_DIR in *[!A-Za-z0-9/._+-]*) die "LAB_DIR may hold letters, digits and / . _ + - only: $LAB_DIR" ;; esac
  export LAB_DIR
}

lab_need() {
  [ -n "${LAB_DIR:-}" ] || die "set LAB_DIR to the directory that 'up' printed"
  LAB_DIR=$(realpath -m "$LAB_DIR")
  export LAB_DIR
}

lab_drop() { # when neither part is left: the namespace, the locks, and the directory if we made it
  [ ! -e "$LAB_DIR/ceph" ] && [ ! -e "$LAB_DIR/zfs" ] || return 0
  net_down
  rm -f "$LAB_DIR"/.lock.*
  [ ! -e "$LAB_DIR/.made" ] || { rm "$LAB_DIR/.made"; rmdir "$LAB_DIR" 2>/dev/null || true; }
}

# One script at a time works on a part of the bed. Whoever starts a daemon closes descriptor 9 for it (9>&-): a daemon that
# inherited it would hold the lock for as long as it lives. A script that runs under another one's lock takes none.
locked() { # NAME
  local mark=LAB_HOLDS_$1
  [ -z "${!mark:-}" ] || return 0
  exec 9>"$LAB_DIR/.lock.$1"
  flock 9
  export "$mark=1"
}

# --- processes. A pid from a file may meanwhile be another process: whoever signals it looks at its command line first.

alive() { # PID WORD: it runs (a zombie does not) and has WORD in its command line
  local state
  [ -n "${1:-}" ] || return 1
  state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
  [[ $state == [!ZX] ]] || return 1
  [[ "$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null)" == *"$2"* ]]
}

gone() { # SECONDS PID WORD: wait until it is not alive
  local end=$((SECONDS + $1))
  while alive "$2" "$3"; do
    [ "$SECONDS" -le "$end" ] || return 1
    sleep 0.02
  done
}

# --- the network: a namespace for each LAB_DIR, without a route to anywhere. 192.0.2.1 is the host's side, .11 and up are guests.
# A bind mount in LAB_DIR keeps it, so it leaves no trace elsewhere (`ip netns` does not list it). nsenter and not
# `ip netns exec`, which makes a mount namespace too: mounts made in there would be invisible outside.

in_net() { nsenter --net="$LAB_DIR/net/ns" -- "$@"; }

net_up() {
  (
    flock 9
    ! mountpoint -q "$LAB_DIR/net/ns" || exit 0
    mkdir -p "$LAB_DIR/net"
    : >"$LAB_DIR/net/ns"
    unshare --net="$LAB_DIR/net/ns" true
    in_net ip link set lo up
    # on lo and not on a tap: it stays while guests come and go, and answers ARP on all taps
    in_net ip addr add 192.0.2.1/32 dev lo
  ) 9>"$LAB_DIR/.lock.net"
}

net_down() {
  [ -d "$LAB_DIR/net" ] || return 0
  ! mountpoint -q "$LAB_DIR/net/ns" || umount "$LAB_DIR/net/ns"
  rm -rf --one-file-system "$LAB_DIR/net"
}

# --- what this machine must have, else the tests that want the bed are skipped

need_commands() {
  local command lacking=()
  for command in "$@"; do command -v "$command" >/dev/null || lacking+=("$command"); done
  [ ${#lacking[@]} = 0 ] || skip "${lacking[*]} not installed (scripts/setup)"
}

need_namespace() {
  [ "$(id -u)" = 0 ] || skip "the test bed needs root"
  need_commands ip nsenter unshare flock
  unshare --net true 2>/dev/null || skip "no network namespaces here"
}

need_ceph() {
  need_namespace
  need_commands ceph-mon ceph-osd ceph-mgr ceph-authtool monmaptool rbd
  /usr/bin/python3 -c 'import rados' 2>/dev/null || skip "python3-rados not installed (scripts/setup)"
}

need_zfs() {
  need_namespace
  need_commands ssh ssh-keygen gcc /usr/bin/python3
  { [ -c /dev/net/tun ] && (: <>/dev/net/tun) 2>/dev/null; } || skip "no /dev/net/tun here"
}

# --- the guest image: LAB_IMAGE, a ready-made one beside the project, or our own build (some minutes, once)

guest_image() {
  local beside=$LAB/../../../shared/lab/zfs/prebuilt
  if [ -n "${LAB_IMAGE:-}" ]; then IMAGE=$LAB_IMAGE
  elif [ -e "$beside/initrd.zst" ]; then IMAGE=$beside
  else IMAGE=$("$LAB/guest/build"); fi
  IMAGE=$(realpath "$IMAGE")
  [ -e "$IMAGE/initrd.zst" ] || die "no guest image in $IMAGE"
}
