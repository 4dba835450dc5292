#!/bin/sh
# usage: make-root.sh SUITE DIR [STORE]
#
# Makes a bare root of another Debian release in DIR, from this machine's mirror, and installs in it
# what the tests use. A root that is there already only gets the packages that it lacks. With valkey
# as STORE it has valkey-server instead of redis-server. Run it as root.
set -eu

suite=$1 dir=$2 store=${3:-}
here=$(dirname "$0")

if [ "$(id -u)" -ne 0 ]; then
	echo "make-root: run this as root" >&2
	exit 1
fi
if [ ! -e "$dir/.complete" ]; then
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 2>/dev/null | grep -v security | head -n 1)
	mirror=${mirror:-http://deb.debian.org/debian/}
	rm -rf "$dir.new" "$dir"
	mkdir -p "$(dirname "$dir")"
	if command -v mmdebstrap >/dev/null; then
		mmdebstrap --variant=minbase "$suite" "$dir.new" "$mirror"
	else
		command -v debootstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap
		script=/usr/share/debootstrap/scripts/$suite
		[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid # newer than this debootstrap
		debootstrap --variant=minbase "$suite" "$dir.new" "$mirror" "$script"
	fi
	for f in /etc/resolv.conf /etc/hosts $(grep -lis Acquire /etc/apt/apt.conf /etc/apt/apt.conf.d/*); do # a proxy, for example
		cp -L "$f" "$dir.new$f"
	done
	for device in null zero random urandom; do
		[ -e "$dir.new/dev/$device" ] || cp -a "/dev/$device" "$dir.new/dev/"
	done
	mv "$dir.new" "$dir"
	touch "$dir/.complete"
fi
if [ "$store" = valkey ]; then # install-deps.sh takes the store that is there
	"$here/in-root.sh" "$dir" sh -c 'test -e /usr/bin/valkey-server ||
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends valkey-server; }'
fi
"$here/in-root.sh" "$dir" contrib/trial/install-deps.sh
