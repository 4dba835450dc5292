#!/bin/sh
# Installs the Debian packages that the trial stack and the tests use, and those named in EXTRA, as far
# as they are missing. It checks the versions first, starts no service, leaves those it brings disabled, and removes no
# package. With nothing missing it changes nothing and needs no root.
set -eu

fail() {
	echo "install-deps: $*" >&2
	exit 1
}

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# The installed version of a package, else the one that apt would install, else nothing.
version() {
	if installed "$1"; then
		dpkg-query -W -f '${Version}' "$1"
	else
		apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '^(none)$' || :
	fi
}

# Packages, by the versions that this machine has or would get.
choose() {
	dovecot=$(version dovecot-core)
	packages="dovecot-imapd dovecot-pop3d dovecot-managesieved dovecot-lmtpd dovecot-submissiond dovecot-auth-lua postfix swaks libnet-ssleay-perl curl python3-yaml"
	# Ubuntu has no such package, only a snap: the tests of pages fail there, all else works.
	grep -q '^ID=ubuntu' /etc/os-release || packages="$packages chromium"
	case ${dovecot#*:} in
	2.3.1[3-9]* | 2.3.[2-9][0-9]*) ;;
	2.4.*) ;;
	'') packages="dovecot-core $packages" ;; # not known before the package lists are
	*) fail "dovecot-core is $dovecot: Dovecot 2.3.13 or later, or 2.4, is needed (Debian 12 or 13, Ubuntu 24.04 or later)" ;;
	esac
	case $(version postfix) in
	[12].* | 3.[0-6].*) fail "postfix is $(version postfix): version 3.7 or later is needed (Debian 12 or 13, Ubuntu 24.04 or later)" ;;
	esac
	if ! installed redis-server && installed valkey-server || [ -z "$(version redis-server)$1" ]; then
		store=valkey-server
	else
		store=redis-server
	fi
	packages="$store $packages ${EXTRA-}"
	case $(version $store) in
	'') ;;
	*:[1-6].* | [1-6].*) fail "$store is $(version $store): version 7 or later is needed (Debian 12 or 13, Ubuntu 24.04 or later)" ;;
	esac
	missing=
	for p in $packages; do
		installed "$p" || missing="$missing $p"
	done
}

command -v dpkg-query >/dev/null ||
	fail "this is not Debian: install Dovecot, Postfix, Redis, swaks, curl and chromium by its own means, as contrib/trial/install-deps.sh lists them"
choose lists-unknown
[ -n "$missing" ] || exit 0

command -v apt-get >/dev/null || fail "there is no apt-get: install by other means:$missing"
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || fail "missing packages:$missing
  there is no sudo: as root, run: $0"
	echo "install-deps: sudo is needed to install$missing"
	exec sudo EXTRA="${EXTRA-}" "$0"
fi

apt-get update -qq || echo "install-deps: the package lists could not be updated; continuing with the present ones" >&2
choose ''
[ -n "$dovecot" ] || fail "apt knows no dovecot-core: add Debian's \"main\" (on Ubuntu also \"universe\") to /etc/apt/sources.list"

# A running Dovecot would speak one protocol more from its next restart on.
case $missing in *dovecot-*)
	if [ -r /run/dovecot/master.pid ] && kill -0 "$(cat /run/dovecot/master.pid)" 2>/dev/null; then
		fail "this machine runs a Dovecot of its own, to which these packages would add protocols:$missing
  If that is all right, install them yourself: apt-get install --no-install-recommends$missing"
	fi ;;
esac

# The services of new packages must not run now, nor after the next boot.
units=
for pair in dovecot-core:dovecot.service dovecot-core:dovecot.socket redis-server:redis-server.service valkey-server:valkey-server.service \
	postfix:postfix.service opendkim:opendkim.service; do
	installed "${pair%%:*}" || units="$units ${pair#*:}"
done

log=$(mktemp)
guard=
trap 'rm -f "$log" $guard' EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e /usr/sbin/policy-rc.d ]; then
	guard=/usr/sbin/policy-rc.d
	printf '#!/bin/sh\n# Put here by %s while it installs packages.\nexit 101\n' "$0" >"$guard"
	chmod 0755 "$guard"
fi

# Without this answer Postfix would write settings for this machine.
installed postfix || echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections

echo "install-deps: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
if ! apt-get install -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends --no-remove $missing </dev/null >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	fail "apt-get could not install:$missing
  If that speaks of a conflict: another mail server (such as exim4) cannot stay beside Postfix, and this script removes none."
fi

if [ -n "$units" ] && command -v systemctl >/dev/null; then
	for u in $units; do
		systemctl disable "$u" >/dev/null 2>&1 || : # one that the package does not have
	done
	echo "install-deps: done; the system's own services of these packages are left disabled"
fi
