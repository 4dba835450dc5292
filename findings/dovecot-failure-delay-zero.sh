#!/bin/sh
# Dovecot 2.3.19.1 keeps each failed login for up to half a second with auth_failure_delay = 0. 2.4.1 does not.
#
# Failures are gathered, and answered together twice a second. A client that fails, and tries again at once, waits for
# the whole half second; those that failed beside it are answered at the same time. The processor is idle meanwhile.
#
# Seen: five right passwords, five wrong ones one after another, and twenty wrong ones at once, from different
# addresses, with Dovecot's own penalty (anvil-auth-penalty) off. What helps: to measure failed logins with many at once;
# a benchmark or a health check that fails logins one after another shows 2 a second.
# Needs root, and dovecot-core of Debian 12 (1:2.3.19.1+dfsg1-2.1+deb12u); writes to a temporary directory only, and
# listens nowhere. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
chmod 755 "$dir"
dovecot=
end() {
	[ -z "$dovecot" ] || { kill "$dovecot" && wait "$dovecot"; } || true
	rm -rf "$dir"
}
trap end EXIT
echo 'ann:{PLAIN}secret::::::' >"$dir/users"
cat >"$dir/dovecot.conf" <<E2
passdb {
  driver = passwd-file
  args = $dir/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/tmp
}
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
base_dir = $dir/run
state_dir = $dir/state
log_path = $dir/log
ssl = no
protocols =
E2
log_in() { doveadm -c "$dir/dovecot.conf" auth test -x service=imap -x "rip=192.0.2.$2" ann "$1" >/dev/null 2>&1; }
now() { date +%s%N | cut -c1-13; }
# quickest prints the shortest time of five logins, in ms.
quickest() {
	least=99999
	for i in 1 2 3 4 5; do
		began=$(now)
		log_in "$1" "$i" || true
		took=$(($(now) - began))
		[ "$took" -ge "$least" ] || least=$took
	done
	echo "$least"
}
dovecot -F -c "$dir/dovecot.conf" &
dovecot=$!
until [ -e "$dir/run/master.pid" ]; do sleep 0.1; done
echo "Dovecot $(dovecot --version)"
log_in secret 9
right=$(quickest secret) wrong=$(quickest wrong)
echo "a right password: $right ms; a wrong one: $wrong ms"
began=$(now)
all=
for i in 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
	log_in wrong "$i" &
	all="$all $!"
done
for i in $all; do wait "$i" || true; done
together=$(($(now) - began))
echo "twenty wrong ones at once: $together ms"
[ "$right" -lt 300 ] && [ "$wrong" -ge 400 ] && [ "$together" -lt $((20 * wrong)) ]
