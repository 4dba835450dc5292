#!/bin/sh
# Dovecot 2.3.19.1 and 2.4.1 do not know the time-out that the example of 2.3's manual gives to their
# HTTP client for Lua.
#
# dovecot.http.client { timeout = 10000; max_attempts = 3; debug = true; } is the example of "Example
# HTTP client code" in the manual of 2.3 (admin_manual/lua), and many setups have it. 2.3.19.1 ignores
# names that it does not know, without a word: "timeout" is one. A login waits for a server that does
# not answer for as long as without it, a minute. The names that work there are request_timeout_msecs,
# connect_timeout_msecs and max_attempts, in milliseconds. 2.4.1 has others again (request_timeout,
# connect_timeout, request_max_attempts; texts such as "1s"), refuses "timeout", and with it all logins.
#
# Seen: a passdb whose script asks a server that accepts connections and says nothing. With 2.3.19.1 a
# login ends after 1 s with request_timeout_msecs = 1000, and with timeout = 1000 it still waits after
# 10 s. With 2.4.1 it fails with timeout = 1000, too, and the log says "Invalid HTTP client setting:
# timeout is unknown setting". What helps: a test of the script against a server that is silent.
# Needs root and Debian's apt: dovecot-core and dovecot-auth-lua of Debian 12 (2.3.19.1) or 13 (2.4.1),
# installed, or downloaded to a temporary directory and mounted over /usr for this script alone; Python
# 3. Listens on 127.0.0.1:10145. Exit status 0: as described.
set -eu
if ! [ -e /usr/lib/dovecot/modules/auth/libauthdb_lua.so ] && [ -z "${MOUNTED:-}" ]; then # downloads them, and mounts them over /usr for this script alone
	packages=$(mktemp -d)
	trap 'rm -rf "$packages"' EXIT
	(cd "$packages" && mkdir debs && apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends --download-only \
		-o APT::Sandbox::User=root -o Dir::Cache::archives="$packages/debs" dovecot-core dovecot-auth-lua python3 >/dev/null
		for deb in debs/*.deb; do dpkg -x "$deb" tree; done
		! [ -e tree/lib ] || cp -a tree/lib/. tree/usr/lib/)
	MOUNTED=1 packages=$packages unshare --mount sh -c 'mount -t overlay overlay -o "lowerdir=$packages/tree/usr:/usr" /usr && exec sh "$0"' "$0"
	exit
fi
dir=$(mktemp -d)
chmod 755 "$dir"
version=$(dovecot --version)
echo "Dovecot $version"
dovecot='' server=''
end() {
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	[ -z "$server" ] || { kill "$server" && wait "$server"; } 2>/dev/null || true
	rm -rf "$dir"
}
trap end EXIT
python3 -c '
import socket, time
server = socket.create_server(("127.0.0.1", 10145), backlog=100)
time.sleep(600)' &
server=$!
case $version in
2.3.*)
	printf 'passdb {\n  driver = lua\n  args = file=%s/script.lua\n}\nuserdb {\n  driver = static\n  args = uid=mail gid=mail home=/tmp\n}\n' "$dir" >"$dir/dovecot.conf"
	works='request_timeout_msecs = 1000, max_attempts = 1'
	;;
*)
	printf 'dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\npassdb lua {\n  lua_file = %s/script.lua\n}\nuserdb static {\n  fields {\n    uid = mail\n    gid = mail\n    home = /tmp\n  }\n}\n' "$dir" >"$dir/dovecot.conf"
	works='request_timeout = "1s", request_max_attempts = "1"'
	;;
esac
printf 'base_dir = %s\nstate_dir = %s\nlog_path = %s\nssl = no\nprotocols =\ndefault_internal_user = mail\ndefault_internal_group = mail\ndefault_login_user = nobody\n' \
	"$dir/run" "$dir/state" "$dir/log" >>"$dir/dovecot.conf"

# login prints how many seconds a login takes, 10 if it has not ended by then, with this client.
login() {
	cat >"$dir/script.lua" <<E2
function auth_password_verify(request, password)
  local response = dovecot.http.client({$1}):request({url = "http://127.0.0.1:10145/", method = "POST"}):submit()
  return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, tostring(response:status())
end
function auth_passdb_lookup(request) return dovecot.auth.PASSDB_RESULT_NEXT, "" end
E2
	dovecot -F -c "$dir/dovecot.conf" &
	dovecot=$!
	until [ -S "$dir/run/auth-client" ]; do
		sleep 0.1
		kill -0 "$dovecot" || exit 1
	done
	began=$(date +%s%N)
	timeout 10 doveadm -c "$dir/dovecot.conf" auth test -x service=imap ann secret >/dev/null 2>&1 || true
	echo "$((($(date +%s%N) - began) / 1000000000))"
	kill "$dovecot" && wait "$dovecot" || true
	dovecot=''
	rm -rf "$dir/run"
}
right=$(login "$works")
echo "dovecot.http.client { $works }: a login ends after $right s"
: >"$dir/log"
manual=$(login 'timeout = 1000, max_attempts = 1')
said=$(grep -m 1 'timeout' "$dir/log" | sed 's/.*\(Lua\|lua\)/\1/' || true)
echo "dovecot.http.client { timeout = 1000, max_attempts = 1 }: after $manual s; log: ${said:-nothing about it}"
case $version in
2.3.*) [ "$right" -le 4 ] && [ "$manual" -ge 10 ] && [ -z "$said" ] ;;
*) [ "$right" -le 6 ] && [ "$manual" -le 6 ] && [ -n "$said" ] ;;
esac
