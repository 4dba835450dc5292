#!/bin/sh
# usage: make-root.sh SUITE DIR
#
# Makes a root of another Debian release in DIR, with the mail servers that the tests run there, from
# the mirror that this machine uses. A root that is complete is left as it is. Run it as root.
set -eu

suite=$1 dir=$2
packages=dovecot-core,dovecot-imapd,dovecot-pop3d,dovecot-managesieved,dovecot-lmtpd,dovecot-auth-lua,postfix,redis-server

[ ! -e "$dir/.complete" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
	echo "$0: run this as root" >&2
	exit 1
fi
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -v security | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian/}
rm -rf "$dir.new"
mkdir -p "$(dirname "$dir")"
if command -v mmdebstrap >/dev/null; then
	# Nothing in it starts a service: the tests start what they need themselves.
	mmdebstrap --variant=minbase --include="$packages" \
		--setup-hook='mkdir -p "$1/usr/sbin"; printf "#!/bin/sh\nexit 101\n" >"$1/usr/sbin/policy-rc.d"; chmod +x "$1/usr/sbin/policy-rc.d"' \
		"$suite" "$dir.new" "$mirror"
else
	if ! command -v debootstrap >/dev/null; then
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends debootstrap
	fi
	debootstrap --variant=minbase "$suite" "$dir.new" "$mirror"
	printf '#!/bin/sh\nexit 101\n' >"$dir.new/usr/sbin/policy-rc.d"
	chmod +x "$dir.new/usr/sbin/policy-rc.d"
	for f in /etc/resolv.conf /etc/hosts; do
		[ ! -r "$f" ] || cp -L "$f" "$dir.new$f"
	done
	for f in /etc/apt/apt.conf /etc/apt/apt.conf.d/*; do # a proxy, or other ways to the mirror
		[ ! -f "$f" ] || cp -L "$f" "$dir.new/etc/apt/apt.conf.d/" 2>/dev/null || true
	done
	chroot "$dir.new" apt-get update
	chroot "$dir.new" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(echo "$packages" | tr ',' ' ')
fi
for device in null zero random urandom; do
	[ -e "$dir.new/dev/$device" ] || cp -a "/dev/$device" "$dir.new/dev/"
done
rm -rf "$dir"
mv "$dir.new" "$dir"
touch "$dir/.complete"
