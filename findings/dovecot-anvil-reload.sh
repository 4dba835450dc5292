#!/bin/sh
# Dovecot 2.4.5 admits nobody after a reload that adds or removes "service anvil { unix_listener
# anvil-auth-penalty { mode = 0 } }", until it is restarted.
#
# That block is the known way to switch off the delay that wrong passwords cause for an address. 2.4.5
# has a further socket in that service, anvil-connect-limit, which the reload removes; every login
# process needs it. 2.3.19 and 2.4.1 take the same reload without harm.
#
# Seen: a login by IMAP before the reload; after it, none, and "Couldn't connect to anvil" in the log;
# after a restart with the same configuration, again. What helps: restart after such a change.
# Needs root, Perl, and dovecot-imapd of Debian testing (1:2.4.5+dfsg1) or 13 (1:2.4.1+dfsg1),
# installed, or downloaded by apt; writes to a temporary directory only, and listens on 127.0.0.1:10143.
# Exit status 0: as described.
set -eu
if ! [ -e /usr/lib/dovecot/imap ] && [ -z "${MOUNTED:-}" ]; then # downloads them, and mounts them over /usr for this script alone
	packages=$(mktemp -d)
	trap 'rm -rf "$packages"' EXIT
	(cd "$packages" && mkdir debs && apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends --download-only \
		-o APT::Sandbox::User=root -o Dir::Cache::archives="$packages/debs" dovecot-imapd perl-base >/dev/null
		for deb in debs/*.deb; do dpkg -x "$deb" tree; done
		! [ -e tree/lib ] || cp -a tree/lib/. tree/usr/lib/)
	MOUNTED=1 packages=$packages unshare --mount sh -c 'mount -t overlay overlay -o "lowerdir=$packages/tree/usr:/usr" /usr && exec sh "$0"' "$0"
	exit
fi
dir=$(mktemp -d)
chmod 755 "$dir"
dovecot=
end() {
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	rm -rf "$dir"
}
trap end EXIT
version=$(dovecot --version)
echo 'ann:{PLAIN}secret::::::' >"$dir/users"
mkdir -m 1777 "$dir/home"
cat >"$dir/dovecot.conf" <<E
dovecot_config_version = 2.4.1
dovecot_storage_version = 2.4.1
base_dir = $dir/run
default_internal_user = mail
default_internal_group = mail
default_login_user = nobody
state_dir = $dir/state
log_path = $dir/log
ssl = no
auth_allow_cleartext = yes
first_valid_uid = 1
protocols = imap
mail_driver = maildir
mail_path = $dir/home/mail
passdb passwd-file {
  passwd_file_path = $dir/users
}
userdb static {
  fields {
    uid = mail
    gid = mail
    home = $dir/home
  }
}
service imap-login {
  inet_listener imap {
    listen = 127.0.0.1
    port = 10143
  }
  inet_listener imaps {
    port = 0
  }
}
!include_try $dir/anvil.conf
E
cat >"$dir/login.pl" <<'E'
use IO::Socket::INET;
my $s = IO::Socket::INET->new(PeerAddr => "127.0.0.1:10143", Timeout => 5) or print("no connection\n"), exit;
$SIG{ALRM} = sub { print "no answer\n"; exit };
alarm 10;
my $greeting = <$s> // "";
print $s "a LOGIN ann secret\r\n";
while (<$s>) { if (/^a (\w+)/) { print "$1\n"; exit } }
print "connection closed\n";
E
start() {
	dovecot -F -c "$dir/dovecot.conf" &
	dovecot=$!
	until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
	sleep 1
}
start
echo "Dovecot $version"
before=$(perl "$dir/login.pl")
printf 'service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}\n' >"$dir/anvil.conf"
doveadm -c "$dir/dovecot.conf" reload
sleep 2
after=$(perl "$dir/login.pl")
kill "$dovecot" && wait "$dovecot" || true
grep -o "Couldn't connect to anvil" "$dir/log" | sort -u || true
start
restarted=$(perl "$dir/login.pl")
echo "before: $before; after the reload: $after; after a restart: $restarted"
case $version in
2.4.5*) [ "$before/$restarted" = OK/OK ] && [ "$after" != OK ] ;;
*) [ "$before/$after/$restarted" = OK/OK/OK ] ;;
esac
