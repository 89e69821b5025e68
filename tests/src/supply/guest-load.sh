#!/bin/busybox sh
# load MODULE...: loads kernel modules and what they need. One the initrd has no file of is built
# into this kernel, or not there: its device then does not appear, and the test says so.
for name; do
	[ -e /modules/$name.ko ] || continue
	for module in $(cat /modules/$name.needs) $name; do
		[ -e /sys/module/$module ] || insmod /modules/$module.ko || exit 1
	done
done
