#!/bin/sh
# Dovecot 2.4.1 does not authenticate anybody if result_success of the last passdb is "continue"; 2.3.19.1
# takes the same and refuses every login.
#
# A passdb that only checks what another one has verified, and continues, is the last of its chain. The
# auth process of 2.4.1 ends at its first start with "Last passdb can't have result_success=continue".
# doveconf -n does not object with either version, and the master process goes on running.
#
# Seen: doveconf -n, then a right password of the one passdb there is. What helps: result_success =
# return (2.4) or return-ok (2.3) in the last passdb.
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
echo 'ann:{PLAIN}secret::::::' >"$dir/users"
version=$(dovecot --version)
case $version in
2.3.*)
	passdb="passdb {
  driver = passwd-file
  args = $dir/users
  result_success = RESULT
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/tmp
}"
	;;
*)
	printf 'dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n' >"$dir/head"
	passdb="passdb passwd-file {
  passwd_file_path = $dir/users
  result_success = RESULT
}
userdb static {
  fields {
    uid = mail
    gid = mail
    home = /tmp
  }
}"
	;;
esac
echo "Dovecot $version"
for result in return-ok continue; do
	{
		cat "$dir/head" 2>/dev/null || true
		printf 'base_dir = %s\nstate_dir = %s\nlog_path = %s\nssl = no\nprotocols =\ndefault_internal_user = mail\ndefault_internal_group = mail\ndefault_login_user = nobody\n' "$dir/run" "$dir/state" "$dir/log"
		echo "$passdb" | sed "s/RESULT/$result/"
	} >"$dir/dovecot.conf"
	doveconf -n -c "$dir/dovecot.conf" >/dev/null
	: >"$dir/log"
	dovecot -F -c "$dir/dovecot.conf" &
	dovecot=$!
	until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
	code=0
	timeout 20 doveadm -c "$dir/dovecot.conf" auth test -x service=imap ann secret >"$dir/said" 2>&1 || code=$?
	echo "$result: doveadm auth test ends with $code: $(head -1 "$dir/said")"
	fatal=$(sed -n 's/.*Fatal: //p' "$dir/log" | sort -u)
	[ -z "$fatal" ] || echo "log: $fatal"
	case $version/$result in
	*/return-ok) [ "$code" = 0 ] ;;
	2.3.*) [ "$code" = 77 ] && [ -z "$fatal" ] ;;
	*) [ "$code" != 0 ] && [ "$fatal" = "Last passdb can't have result_success=continue" ] ;;
	esac
	kill "$dovecot" && wait "$dovecot" || true
	dovecot=
	rm -rf "$dir/run"
done
