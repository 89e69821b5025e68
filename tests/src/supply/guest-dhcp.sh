#!/bin/busybox sh
# What udhcpc calls with what a DHCP server said.
case "$1" in
deconfig)
	ip address flush dev $interface
	ip link set $interface up
	;;
bound | renew)
	ip address add $ip/$mask dev $interface 2>/dev/null
	[ -z "$router" ] || ip route replace default via ${router%% *} dev $interface
	: >/etc/resolv.conf
	for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done
	[ -z "$domain" ] || echo "search $domain" >>/etc/resolv.conf
	;;
esac
