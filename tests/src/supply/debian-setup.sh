#!/bin/sh
# What mmdebstrap calls when the packages are installed: $1 is the root of the new system, $2 the
# directory of the guest kernel's modules.
set -e
mkdir -p "$1/usr/lib/modules"
cp -r "$2/." "$1/usr/lib/modules"
chroot "$1" depmod "$(ls "$1/usr/lib/modules")"

echo 'root:vmtest' | chroot "$1" chpasswd
echo debian >"$1/etc/hostname"
echo '127.0.0.1 localhost debian' >"$1/etc/hosts"
echo '/dev/vda / ext4 errors=remount-ro 0 1' >"$1/etc/fstab"

# Every network card takes its address from a DHCP server; nothing waits for one.
cat >"$1/etc/systemd/network/dhcp.network" <<END
[Match]
Type=ether
[Network]
DHCP=ipv4
END
chroot "$1" systemctl enable systemd-networkd systemd-resolved
chroot "$1" systemctl disable systemd-networkd-wait-online
# What would begin to work by itself in the middle of a test.
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
	e2scrub_all.timer e2scrub_reap.service fstrim.timer systemd-tmpfiles-clean.timer
