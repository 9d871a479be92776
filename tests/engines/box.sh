#!/bin/sh
# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
#
# The first process of a box (box.py): becomes a Debian that is made of tool trees, and waits. It is in namespaces of
# its own already. $1: an empty folder; $2: the trees as overlayfs takes them; $3: control groups, "v1 NAME…" or "v2";
# $4 $5…: folders of the host, and where they are shown in the box, read-only.
set -eu
work=$1 lower=$2 groups=$3
shift 3
read -r pid rest </proc/self/stat

mount --make-rprivate /
mkdir "$work/over" "$work/root"
mount -t tmpfs -o mode=755 over "$work/over"
mkdir "$work/over/upper" "$work/over/work" "$work/over/empty"
mount -t overlay -o "lowerdir=$lower:$work/over/empty,upperdir=$work/over/upper,workdir=$work/over/work" box "$work/root"
cd "$work/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
rm -rf var/run
ln -s /run var/run
# udev lets everybody have it; networks of rootless engines are made with it.
mknod -m 666 run/tun c 10 200
mount --bind run/tun dev/net/tun
# Where engines keep images: overlayfs does not stack on overlayfs.
mount --bind "$work/lib" var/lib
mkdir -p srv
mount --bind "$work/share" srv
while [ $# -gt 0 ]; do
    mkdir -p ".$2"
    mount --bind "$1" ".$2"
    mount -o remount,bind,ro ".$2"
    shift 2
done

# Seen from the box's cgroup namespace: nothing of the machine's groups is there.
mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
case $groups in
v1*)
    for name in ${groups#v1}; do
        mkdir "sys/fs/cgroup/$name"
        case $name in
        systemd) mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd ;;
        *) mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name" ;;
        esac
    done
    ;;
v2)
    mount -t cgroup2 cgroup sys/fs/cgroup
    # Controllers are handed down only from a group without processes.
    mkdir sys/fs/cgroup/init
    # Read to its end first: what moves out of the list while it is read would make holes in it.
    all=$(cat sys/fs/cgroup/cgroup.procs)
    for one in $all; do
        echo "$one" >sys/fs/cgroup/init/cgroup.procs 2>/dev/null || true
    done
    sed -e 's/ / +/g' -e 's/^/+/' sys/fs/cgroup/cgroup.controllers >sys/fs/cgroup/cgroup.subtree_control
    ;;
esac

mkdir before
pivot_root . before
umount -l before
rmdir before
cd /
PATH=/usr/sbin:/usr/bin:/sbin:/bin
# As systemd has it; rootless engines want it.
mount --make-rshared /
chmod 1777 /var/tmp
echo box >/proc/sys/kernel/hostname
ip link set lo up
# What maintainer scripts would have made.
cat >/etc/passwd <<'END'
root:x:0:0:root:/root:/bin/sh
someone:x:1000:1000:someone:/home/someone:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
END
printf '%s\n' root:x:0: docker:x:101: someone:x:1000: nogroup:x:65534: >/etc/group
printf '%s\n' someone:100000:65536 >/etc/subuid
printf '%s\n' someone:100000:65536 >/etc/subgid
printf '%s\n' '127.0.0.1 localhost box' '::1 localhost' >/etc/hosts
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
mkdir -p /home/someone
chown 1000:1000 /home/someone
chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap

# Children that nobody waits for are gone at once while this signal is ignored.
trap '' CHLD
echo "ready $pid"
exec sleep infinity
