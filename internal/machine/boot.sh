#!/bin/sh
# usage: boot.sh ROOT DIR
#
# Boots Debian's own systemd on a root that stays as it is: changes go to DIR, which is empty, and end
# with it. The caller has started this as the first process of new namespaces for processes, mounts,
# host name and System V IPC, and has a network of its own.
set -eu
lower=$1 dir=$2
mount --make-rprivate /
mkdir "$dir/upper" "$dir/work" "$dir/root" "$dir/cgroup"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
# A control group of its own, so that it does not touch those of this machine's systemd.
mount -t cgroup2 cgroup2 "$dir/cgroup"
mkdir "$dir/cgroup/${dir##*/}"
echo 0 >"$dir/cgroup/${dir##*/}/cgroup.procs"
umount "$dir/cgroup"
cd "$dir/root"
rm -f usr/sbin/policy-rc.d
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
	: >dev/$device
	mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm .old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs -o mode=755 tmpfs run
pivot_root . .old
exec unshare --cgroup sh -c '
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	umount -l /.old
	exec env -i container=drawbridge-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd'
