#!/bin/sh
# Dovecot 2.3.19.1 ignores auth_policy settings within "protocol NAME { }", without a word.
#
# A passdb within "protocol smtp { }" is asked for that service alone, and doveconf -f protocol=smtp
# shows the auth_policy settings that stand there. The auth process asks the policy server by the
# global settings all the same.
#
# Seen: a check and a report for service smtp, for which both are switched off. Dovecot 2.4.1 makes
# neither. What helps with 2.3: nothing for one protocol alone.
# Needs root, Debian 12's dovecot-core and Python 3, installed, or downloaded by apt; writes to a
# temporary directory only. Exit status 0: as described.
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
dovecot=
server=
end() {
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	[ -z "$server" ] || kill "$server" || true
	rm -rf "$dir"
}
trap end EXIT
echo 'ann:{PLAIN}secret::::::' >"$dir/users"
cat >"$dir/server.py" <<'E'
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        print(self.path, "smtp" if '"protocol":"smtp"' in body else "imap", flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b'{"status":0}')

    def log_message(self, *args):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
E
python3 "$dir/server.py" >"$dir/asked" &
server=$!
until [ -s "$dir/asked" ]; do sleep 0.1; done
cat >"$dir/dovecot.conf" <<E
base_dir = $dir/run
default_internal_user = mail
default_internal_group = mail
default_login_user = nobody
state_dir = $dir/state
log_path = $dir/log
ssl = no
protocols =
auth_policy_server_url = http://127.0.0.1:$(head -n 1 "$dir/asked")/policy
auth_policy_hash_nonce = x
auth_policy_check_before_auth = no
auth_policy_request_attributes = login=%{requested_username} protocol=%s
protocol smtp {
  auth_policy_check_after_auth = no
  auth_policy_report_after_auth = no
}
passdb {
  driver = passwd-file
  args = $dir/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/tmp
}
E
dovecot -F -c "$dir/dovecot.conf" &
dovecot=$!
until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
dovecot --version
doveconf -c "$dir/dovecot.conf" -f protocol=smtp auth_policy_check_after_auth auth_policy_report_after_auth
doveadm -c "$dir/dovecot.conf" auth test -x service=smtp ann secret | head -n 1
grep smtp "$dir/asked"
[ "$(grep -c smtp "$dir/asked")" = 2 ]
