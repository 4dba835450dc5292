#!/bin/sh
# Postfix answers 535 "authentication failed" to a login that Dovecot could not verify for the moment.
#
# Dovecot's auth process then answers FAIL with code=temp_fail, and IMAP clients read [UNAVAILABLE].
# Postfix 3.7.11, 3.10.13 and 3.11.7 do not look at that code: the client reads that its password is
# wrong, and asks for another one. Postfix' log lines are the same, too, so a filter that bans addresses
# for failed logins bans everybody in an outage.
#
# Seen: the right password while the password database is away, and a wrong password when it is back:
# one answer, one log line. What helps: a SASL server that closes the connection instead (454).
# Needs root, Perl, postfix, and dovecot-core with dovecot-auth-lua of Debian 12 (3.7.11,
# 1:2.3.19.1+dfsg1), 13 (3.10.13, 1:2.4.1+dfsg1) or testing (3.11.7, 1:2.4.5+dfsg1); writes to a temporary
# directory only, and listens on 127.0.0.1:10999. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
chmod 755 "$dir"
dovecot=
postfix=
end() {
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	[ -z "$postfix" ] || { kill "$postfix" && wait "$postfix"; } || true
	rm -rf "$dir"
}
trap end EXIT
mkdir -p "$dir/etc" "$dir/queue" "$dir/data"
chown postfix "$dir/data"
version=$(dovecot --version)
# A database that is away as long as there is no file "here".
cat >"$dir/database.lua" <<E
function auth_password_verify(request, password)
  local file = io.open("$dir/here")
  if not file then return dovecot.auth.PASSDB_RESULT_INTERNAL_FAILURE, "" end
  file:close()
  if password ~= "secret" then return dovecot.auth.PASSDB_RESULT_PASSWORD_MISMATCH, "" end
  return dovecot.auth.PASSDB_RESULT_OK, {}
end
function auth_passdb_lookup(request) return dovecot.auth.PASSDB_RESULT_NEXT, "" end
E
case $version in
2.3.*)
	cat >"$dir/dovecot.conf" <<E
passdb {
  driver = lua
  args = file=$dir/database.lua
}
E
	;;
*)
	cat >"$dir/dovecot.conf" <<E
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
passdb lua {
  lua_file = $dir/database.lua
}
E
	;;
esac
cat >>"$dir/dovecot.conf" <<E
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/log
auth_debug = yes
ssl = no
protocols =
service auth {
  unix_listener $dir/queue/private/auth {
    mode = 0666
  }
}
E
cat >"$dir/etc/main.cf" <<E
compatibility_level = 3.6
queue_directory = $dir/queue
data_directory = $dir/data
maillog_file = $dir/maillog
maillog_file_prefixes = $dir
myhostname = mail.example.org
mydestination =
alias_maps =
local_recipient_maps =
inet_interfaces = 127.0.0.1
smtpd_sasl_type = dovecot
smtpd_sasl_path = private/auth
smtpd_sasl_auth_enable = yes
smtpd_relay_restrictions = permit_sasl_authenticated, reject
E
cat >"$dir/etc/master.cf" <<E
127.0.0.1:10999 inet n - n - 1 smtpd
postlog unix-dgram n - n - 1 postlogd
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
rewrite unix - - n - - trivial-rewrite
E
cat >"$dir/login.pl" <<'E'
use IO::Socket::INET;
my $s;
until ($s = IO::Socket::INET->new("127.0.0.1:10999")) { select undef, undef, undef, 0.1 }
sub answer { while (<$s>) { return $_ if /^\d{3} / } }
answer;
print $s "EHLO client.example\r\n"; answer;
print $s "AUTH PLAIN $ARGV[0]\r\n"; print answer;
print $s "QUIT\r\n"; answer;
E
postfix -c "$dir/etc" check >/dev/null 2>&1 || true
dovecot -F -c "$dir/dovecot.conf" &
dovecot=$!
until [ -S "$dir/queue/private/auth" ]; do sleep 0.1; done
/usr/lib/postfix/sbin/master -d -c "$dir/etc" &
postfix=$!
echo "Dovecot $version, Postfix $(postconf -c "$dir/etc" -h mail_version)"
right=AGFubgBzZWNyZXQ= wrong=AGFubgBtaXN0YWtl # NUL ann NUL secret or mistake
away=$(perl "$dir/login.pl" $right)
touch "$dir/here"
mistake=$(perl "$dir/login.pl" $wrong)
admitted=$(perl "$dir/login.pl" $right)
said=$(grep -o 'client passdb out: FAIL.*' "$dir/log" | head -n 1 | tr '\t' ' ')
echo "$said"
printf 'away, right password: %s\nwrong password: %s\nright password: %s\n' "$away" "$mistake" "$admitted"
lines=$(grep -o 'SASL PLAIN authentication.*' "$dir/maillog")
echo "$lines"
case $said in *temp*) ;; *) exit 1 ;; esac
case $away in 535*) ;; *) exit 1 ;; esac
case $admitted in 235*) ;; *) exit 1 ;; esac
[ "$away" = "$mistake" ]
[ "$(echo "$lines" | wc -l)" = 2 ] && [ "$(echo "$lines" | sort -u | wc -l)" = 1 ]
