#!/bin/sh
# fail2ban 1.0.2 and 1.1.0 read RFC 3339 times with more than six digits of a second without their
# time zone.
#
# The JSON handler of Go's log/slog writes such times. Of 12:00:00.123456789+01:00, fail2ban reads
# 12:00:00.123456 as local time, and "789+01:00" is left in the line. On a machine in UTC+1 that reads
# logs written in UTC, each failure is an hour old: it is beyond findtime, and nobody is banned. A
# failregex that begins with ^ does not match at all.
#
# Seen: the same line with six and with nine digits, read as one hour apart; with ^\s* in front of the
# pattern, one match and none. What helps: write milliseconds or microseconds.
# Needs Debian's apt (12: fail2ban 1.0.2-2, 13: 1.1.0-8) and Python 3; writes to a temporary directory
# only. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
(. /etc/os-release; case $VERSION_ID in 12) v=1.0.2-2 ;; *) v=1.1.0-8 ;; esac
	apt-get -q download -o APT::Sandbox::User=root "fail2ban=$v" >/dev/null)
ls fail2ban_*.deb
dpkg -x fail2ban_*.deb .
read_line() {
	TZ=UTC PYTHONPATH="$dir/usr/lib/python3/dist-packages" python3 usr/bin/fail2ban-regex -vvv "$1 login failed from 192.0.2.1" "$2"
}
for digits in 123456 123456789; do
	time=2026-11-28T12:00:00.$digits+01:00
	read=$(read_line "$time" 'login failed from <HOST>' | sed -n 's/^|  *192\.0\.2\.1  *//p')
	anchored=$(read_line "$time" '^\s*login failed from <HOST>' | sed -n 's/^Lines: .* \([0-9]*\) matched.*/\1/p')
	echo "$time is read as $read UTC; matches of the pattern with ^: $anchored"
	case $digits in
	123456) [ "$read $anchored" = "Sat Nov 28 11:00:00 2026 1" ] ;;
	123456789) [ "$read $anchored" = "Sat Nov 28 12:00:00 2026 0" ] ;;
	esac
done
