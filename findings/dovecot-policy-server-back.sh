#!/bin/sh
# Dovecot 2.3.19.1 and 2.4.1 fail logins for seconds after their auth-policy server is back.
#
# After connections that failed, Dovecot's HTTP client waits before it connects again, each time longer.
# A request within that time waits, too, and after 2 s counts as failed, although the server would
# answer: "Absolute request timeout expired (Request queued 2.005 secs ago, not yet sent …)". With
# auth_policy_reject_on_fail = yes the login is answered as one with a wrong password.
#
# Seen: a right password while a policy server answers; ten while nobody listens at its port; then one
# after the other from when the server answers again, until Dovecot accepts one: one failure, and 4 to
# 6 s. What helps: a listening socket that stays while the server restarts (systemd's socket units), so
# that no connection fails.
# Needs root, Python 3, and dovecot-core of Debian 12 (1:2.3.19.1+dfsg1-2.1+deb12u) or 13
# (1:2.4.1+dfsg1-6+deb13u), installed, or downloaded by apt; writes to a temporary directory only, and
# listens on 127.0.0.1:10144. Exit status 0: as described.
set -eu
if ! [ -e /usr/sbin/dovecot ] && [ -z "${MOUNTED:-}" ]; then # downloads them, and mounts them over /usr for this script alone
	packages=$(mktemp -d)
	trap 'rm -rf "$packages"' EXIT
	(cd "$packages" && mkdir debs && apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends --download-only \
		-o APT::Sandbox::User=root -o Dir::Cache::archives="$packages/debs" dovecot-core python3 >/dev/null
		for deb in debs/*.deb; do dpkg -x "$deb" tree; done
		! [ -e tree/lib ] || cp -a tree/lib/. tree/usr/lib/)
	MOUNTED=1 packages=$packages unshare --mount sh -c 'mount -t overlay overlay -o "lowerdir=$packages/tree/usr:/usr" /usr && exec sh "$0"' "$0"
	exit
fi
dir=$(mktemp -d)
chmod 755 "$dir"
dovecot= server=
end() {
	[ -z "$server" ] || kill "$server" || true
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	rm -rf "$dir"
}
trap end EXIT
echo 'ann:{PLAIN}secret::::::' >"$dir/users"
version=$(dovecot --version)
policy='auth_policy_server_url = http://127.0.0.1:10144/
auth_policy_hash_nonce = x
auth_policy_reject_on_fail = yes
auth_policy_check_before_auth = yes
auth_policy_check_after_auth = no
auth_policy_report_after_auth = no'
case $version in
2.3.*)
	cat >"$dir/dovecot.conf" <<E2
$policy
passdb {
  driver = passwd-file
  args = $dir/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/tmp
}
E2
	;;
*)
	cat >"$dir/dovecot.conf" <<E2
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
$policy
passdb passwd-file {
  passwd_file_path = $dir/users
}
userdb static {
  fields {
    uid = mail
    gid = mail
    home = /tmp
  }
}
E2
	;;
esac
printf 'base_dir = %s\nstate_dir = %s\nlog_path = %s\nssl = no\nprotocols =\ndefault_internal_user = mail\ndefault_internal_group = mail\ndefault_login_user = nobody\n' "$dir/run" "$dir/state" "$dir/log" >>"$dir/dovecot.conf"
cat >"$dir/server.py" <<'E2'
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "21")
        self.end_headers()
        self.wfile.write(b'{"status":0,"msg":""}')
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer.allow_reuse_address = True
http.server.ThreadingHTTPServer(("127.0.0.1", 10144), Handler).serve_forever()
E2
listen() {
	python3 "$dir/server.py" &
	server=$!
	until python3 -c 'import socket; socket.create_connection(("127.0.0.1", 10144))' 2>/dev/null; do sleep 0.05; done
}
log_in() { doveadm -c "$dir/dovecot.conf" auth test -x service=imap -x rip=192.0.2.1 ann secret >/dev/null 2>&1; }
now() { date +%s%N | cut -c1-13; }

listen
dovecot -F -c "$dir/dovecot.conf" &
dovecot=$!
until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
echo "Dovecot $version"
log_in && echo "a server answers: the login succeeds"
kill "$server" && wait "$server" || true
server=
for i in 1 2 3 4 5 6 7 8 9 10; do
	! log_in || { echo 'a login succeeds without the server'; exit 1; }
done
listen
began=$(now) refused=0
until log_in; do
	refused=$((refused + 1))
	[ $(($(now) - began)) -lt 300000 ] || { echo 'no login succeeds in 300 s'; exit 1; }
	sleep 0.1
done
took=$(($(now) - began))
echo "the server answers again: $refused logins fail, the first succeeds after $took ms"
late=$(grep -o 'Absolute request timeout expired.*' "$dir/log" | tail -1)
echo "log: $late"
case $late in *'not yet sent'*) [ "$refused" -ge 1 ] ;; *) exit 1 ;; esac
