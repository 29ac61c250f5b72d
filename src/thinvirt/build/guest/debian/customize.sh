#!/bin/sh
# Turn a freshly installed tree into the root of an image that many machines start from.
# usage: customize.sh ROOT; mmdebstrap runs it outside the tree, as (apparent) root.
set -eu
root=$1

enable() { chroot "$root" systemctl --quiet enable "$@"; }
mask() { chroot "$root" systemctl --quiet mask "$@"; }

enable systemd-networkd.service systemd-resolved.service serial-getty@ttyS0.service ssh.service
# A hundred clones must not refresh their package lists at the same moment; there are no LVM
# snapshots to scrub; udev loads the graphics driver where there is one.
mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
    modprobe@drm.service

# Identity: each instance makes its own.
rm -f "$root"/etc/ssh/ssh_host_*
rm -f "$root/etc/machine-id" # read-only, which stops whoever only seems to be root
: >"$root/etc/machine-id"
chmod 444 "$root/etc/machine-id"
rm -f "$root/var/lib/dbus/machine-id" "$root/var/lib/systemd/random-seed"
echo localhost >"$root/etc/hostname"
printf '127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# What the installation leaves: logs, backups, the repository it came from. /tmp and what belongs to
# apt stay: mmdebstrap keeps its configuration there, without which the apt that it runs next would
# work on this host's own files; it then empties both itself.
rm -f "$root/etc/apt/sources.list"
find "$root/var/log" -type f -delete
find "$root/var/cache/ldconfig" -type f -delete
rm -rf "$root"/var/tmp/* "$root/var/lib/cloud"
find "$root/var/lib/dpkg" "$root/var/cache/debconf" -name '*-old' -delete
rm -f "$root"/etc/passwd- "$root"/etc/group- "$root"/etc/shadow- "$root"/etc/gshadow- \
    "$root"/etc/subuid- "$root"/etc/subgid-
