#!/bin/sh
# Runs a program on a fresh ext4 with a journal, in an image file behind a loop device: on-ext4.sh DIR PROGRAM [ARG]...
# The program gets `--dir MOUNT` behind its arguments. Root only. Nothing stays behind: the mount lives in a namespace of
# this process, and the image loses its name as soon as it is mounted, so even a kill -9 leaves an empty directory at most.
set -eu

fail() {
  echo "on-ext4.sh: $*" >&2
  exit 1
}

[ "$(id -u)" = 0 ] || fail "only root can mount a file system: run as root, or leave out --ext4"
[ -e /dev/loop-control ] || fail "this machine has no loop devices (/dev/loop-control): leave out --ext4"
for tool in unshare mkfs.ext4 mount; do
  command -v "$tool" >/dev/null || fail "$tool is missing (util-linux, e2fsprogs)"
done

if [ -z "${ON_EXT4_INSIDE:-}" ]; then
  ON_EXT4_INSIDE=1 exec unshare --mount -- "$0" "$@"
fi

dir=$1
program=$2
shift 2

image=
mount=
clean() {
  [ -z "$mount" ] || { umount "$mount" 2>/dev/null || true; rmdir "$mount" 2>/dev/null || true; }
  [ -z "$image" ] || rm -f "$image"
}
trap clean EXIT
trap 'exit 130' INT TERM HUP

image=$(mktemp -p "$dir" wal-peers-XXXXXX.img)
mount=$(mktemp -d -p "$dir" wal-peers-XXXXXX.mnt)
# Written, not only reserved, and never discarded: the file system below then has nothing to allocate while we measure.
dd if=/dev/zero of="$image" bs=1M count=1536 conv=fsync status=none
mkfs.ext4 -q -F -J size=64 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$image"
mount -o loop,nodiscard "$image" "$mount" || fail "cannot mount a loop device here: leave out --ext4"
rm -f "$image"
echo "on-ext4.sh: mkfs.ext4 -J size=64, 1.5 GiB image in $dir, mount -o loop,nodiscard" >&2
"$program" "$@" --dir "$mount"
