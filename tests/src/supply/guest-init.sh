#!/bin/busybox sh
# Process 1 of every Linux test guest: a shell on COM1.
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/ TERM=linux

# A whole system on a disk has an init of its own.
case " $(cat /proc/cmdline)" in
*" root="*)
	load virtio_pci virtio_blk
	root=$(sed 's/.*root=\([^ ]*\).*/\1/' /proc/cmdline)
	mount -t ext4 $root /mnt && exec switch_root /mnt /sbin/init
	;;
esac

ip link set lo up
# The buttons reach user space as keys: nothing else types here. A key powers off, but for
# KEY_WAKEUP (143), by which newer kernels tell that they slept.
load button evdev
for device in /dev/input/event*; do
	while event=$(dd bs=24 count=1 2>/dev/null | tail -c 8 | hexdump -v -e '4/2 "%u "') && [ "$event" ]; do
		case $event in
		"1 143 "*) ;;
		"1 "*) echo VMTEST-BUTTON >/dev/ttyS0; poweroff -f ;;
		esac
	done <$device &
done

exec </dev/ttyS0 >/dev/ttyS0 2>&1
case "$(cat /proc/cmdline)" in
*vmtest.script*)
	stty -echo -onlcr
	echo VMTEST-READY
	sh /dev/ttyS0
	;;
*)
	echo
	echo "VMTEST-READY: a shell of the guest, kernel $(uname -r). 'poweroff -f' ends it."
	setsid cttyhack sh
	;;
esac
poweroff -f
