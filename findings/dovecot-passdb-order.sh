#!/bin/sh
# Dovecot 2.3.19.1 and 2.4.1 ask a passdb that stands within "protocol NAME { }" before every global
# one, wherever the block stands in the file.
#
# So the order of the file does not hold across the two places, and doveconf -n prints it as it is in
# the file. With 2.3, doveconf -f protocol=NAME passdb prints the order that applies. With 2.4.1 it
# prints the order of the file, and an error that the passdb within the block is "unexpectedly not
# found".
#
# Seen: two global passdbs, and a third at the end of the file within protocol imap. A wrong password
# for imap is looked up in the third, the first, the second; for pop3 in the first and the second.
# What helps: passdbs whose order matters stand in one place; the log (auth_debug = yes) shows the order.
# Needs root and dovecot-core of Debian 12 (1:2.3.19.1+dfsg1-2.1+deb12u) or 13 (1:2.4.1+dfsg1-6+deb13u),
# installed, or downloaded by apt; writes to a temporary directory only. Exit status 0: as described.
set -eu
if ! [ -e /usr/sbin/dovecot ] && [ -z "${MOUNTED:-}" ]; then # downloads them, and mounts them over /usr for this script alone
	packages=$(mktemp -d)
	trap 'rm -rf "$packages"' EXIT
	(cd "$packages" && mkdir debs && apt-get -q update >/dev/null && apt-get -q install -y --no-install-recommends --download-only \
		-o APT::Sandbox::User=root -o Dir::Cache::archives="$packages/debs" dovecot-core >/dev/null
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
for name in first second third; do echo "$name:{PLAIN}x::::::" >"$dir/$name"; done
version=$(dovecot --version)
case $version in
2.3.*)
	passdb() { printf 'passdb {\n  driver = passwd-file\n  args = %s\n}\n' "$dir/$1"; }
	userdb='userdb {
  driver = static
  args = uid=mail gid=mail home=/tmp
}'
	;;
*)
	passdb() { printf 'passdb %s {\n  driver = passwd-file\n  passwd_file_path = %s\n}\n' "$1" "$dir/$1"; }
	userdb='userdb static {
  fields {
    uid = mail
    gid = mail
    home = /tmp
  }
}'
	printf 'dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n' >"$dir/dovecot.conf"
	;;
esac
cat >>"$dir/dovecot.conf" <<E
base_dir = $dir/run
default_internal_user = mail
default_internal_group = mail
default_login_user = nobody
state_dir = $dir/state
log_path = $dir/log
auth_debug = yes
ssl = no
protocols =
$(passdb first)
$(passdb second)
protocol imap {
$(passdb third)
}
$userdb
E
dovecot -F -c "$dir/dovecot.conf" &
dovecot=$!
until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
echo "Dovecot $version"
printed=$(doveconf -c "$dir/dovecot.conf" -f protocol=imap passdb 2>"$dir/error" | sed -n "s|.*$dir/||p" | tr '\n' ' ')
echo "doveconf -f protocol=imap passdb: $printed"
cat "$dir/error"
case $version in
2.3.*) [ "$printed" = "third first second " ] ;;
*) [ "$printed" = "first second third " ] && grep -q 'unexpectedly not found' "$dir/error" ;;
esac
echo "the order of the file: first, second, third (imap)"
for service in imap pop3; do
	: >"$dir/log"
	doveadm -c "$dir/dovecot.conf" auth test -x service=$service ann wrong >/dev/null 2>&1 || true
	asked=$(grep -o "lookup: user=.* file=$dir/[a-z]*" "$dir/log" | sed 's|.*/||' | tr '\n' ' ')
	echo "$service: $asked"
	case $service in
	imap) [ "$asked" = "third first second " ] ;;
	pop3) [ "$asked" = "first second " ] ;;
	esac
done
