#!/bin/sh
# usage: in-root.sh ROOT COMMAND [ARGUMENT …]
#
# Runs a command of this repository in a root that make-root.sh made, as root, in the repository's
# directory (/src there). Its mounts and processes end with it.
set -eu

cd "$(dirname "$0")/../.."
root=$1
shift
mkdir -p "$root/src"
exec unshare --mount --pid --fork --kill-child sh -c '
	root=$1
	shift
	mount --bind . "$root/src"
	mount -t proc proc "$root/proc"
	exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DRAWBRIDGE_BIN=/src/bin sh -c "cd /src && exec \"\$@\"" sh "$@"
' sh "$root" "$@"
