#!/bin/busybox sh
# Process 1 of a nested host: loads KVM, mounts the base image, then runs the shell lines that
# come over the virtio-serial port named "shell".
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t tmpfs tmp /tmp
/bin/busybox --install -s /bin
export PATH=/bin HOME=/

for module in /modules/*.ko; do insmod $module; done
# Guests are larger than this host; they touch little of their memory.
echo 1 >/proc/sys/vm/overcommit_memory
ip link set lo up

mkdir -p /dev/shm /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -r -t erofs /dev/vda /host
mount -t proc proc /host/proc
mount -o bind /dev /host/dev
mount -o bind /sys /host/sys
mount -t tmpfs -o size=2G tmp /host/tmp

echo "nested host: $(ls /dev/kvm /host/guests 2>&1 | tr '\n' ' ') after $(cut -d' ' -f1 /proc/uptime) s"
# Whoever reads is interrupted. Reading ends when nobody is connected.
(while true; do cat /dev/vport0p4 >/dev/null 2>&1; sleep 0.1; done) &
# The port stays open: closing it would throw away what has just come in.
exec 3<>/dev/vport0p1
echo NESTED-HOST-READY >&3
# Reading ends when nobody is connected; the next connection gets a new shell.
while true; do
	sh <&3 >&3 2>&3 3>&-
	sleep 0.1
done
