#!/bin/sh
# check.sh tests the files for fail2ban, Prometheus, logcheck and logwatch with Debian's own programs. Packages that are
# not installed are fetched into a temporary directory.
set -eu
cd "$(dirname "$0")/.."
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
if ! command -v promtool >/dev/null || ! command -v fail2ban-regex >/dev/null; then
	(cd "$tmp" && apt-get download prometheus fail2ban >/dev/null 2>&1 && for deb in *.deb; do dpkg-deb -x "$deb" root; done)
	PATH="$tmp/root/usr/bin:$PATH"
	export PYTHONPATH="$tmp/root/usr/lib/python3/dist-packages"
	config="-c $tmp/root/etc/fail2ban"
fi
promtool check rules monitoring/alerts.yml
promtool check config monitoring/prometheus.yml

sed "s/DATE/$(date -u +%Y-%m-%dT%H:%M:%S.043Z)/" fail2ban/sample.log > "$tmp/log"
# shellcheck disable=SC2086 # two words or none
python3 "$(command -v fail2ban-regex)" ${config-} --print-all-matched "$tmp/log" fail2ban/drawbridge.conf > "$tmp/matched"
grep -q "Lines: 10 lines, 0 ignored, 4 matched, 6 missed" "$tmp/matched" || { cat "$tmp/matched"; exit 1; }
echo "fail2ban: 4 of 10 lines ban, those with a wrong password"

perl logwatch/drawbridge < "$tmp/log" | grep -q "login deny (bad_secret)"
sed 's/^2/Nov 28 20:47:27 mx1 drawbridged[12]: 2/' "$tmp/log" | grep -c -E -f logcheck/drawbridge | grep -qx 7
echo "logwatch, logcheck: as expected"
