#!/bin/sh
# Fetches the countries of addresses from Debian's tor-geoipdb into .cache/tor-geoipdb, unless that package is installed. It is not
# installed here because it brings Tor along. The data is CC BY-SA 4.0 (IPFire Location), as its header says.
set -eu
cd "$(dirname "$0")/../.."

into=.cache/tor-geoipdb
for dir in /usr/share/tor $into; do
	[ -r $dir/geoip ] && [ -r $dir/geoip6 ] && exit 0
done

fail() {
	echo "fetch-regions: $*" >&2
	exit 1
}

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
	fail "this is not Debian: put the two files of tor-geoipdb, geoip and geoip6, into $PWD/$into"

mkdir -p .cache
tmp=$(mktemp -d "$PWD/.cache/fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

# As root apt-get says that its own user cannot write there, and does without.
download() {
	(cd "$tmp" && apt-get download -qq tor-geoipdb) >"$tmp/log" 2>&1
}

if ! download; then # a machine whose package lists are none or old
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq || :
	download || {
		cat "$tmp/log" >&2
		fail "apt-get could not download tor-geoipdb"
	}
fi
dpkg-deb -x "$tmp"/tor-geoipdb_*.deb "$tmp/package"
chmod 0755 "$tmp/package/usr/share/tor"
rm -rf $into
mv "$tmp/package/usr/share/tor" $into
echo "fetch-regions: $into holds the countries of addresses, from Debian's tor-geoipdb"
