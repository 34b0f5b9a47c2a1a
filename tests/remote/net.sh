# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# net.sh: machines on one machine, for the tests, the demo and the bench of remote mounts. Each is a network namespace with a veth
# link to a router, which is one more namespace; mounts and processes are ordinary ones, so files are seen everywhere.
# Root. The caller calls net_down however it ends: nothing of it outlives that but namespaces of processes that still run.
#
#   net_up NAME...          make them                       net_address NAME         its address
#   net_in NAME COMMAND...  run a program there; NAME may be hub, the router
#   net_cut NAME            its link goes down              net_heal NAME            and up
#   net_half FROM TO        packets of that direction vanish on the way, nobody is told
#   net_whole FROM TO       and do so no more
#   net_delay NAME MS       what goes to NAME takes so long (0: no delay). Fails where the kernel has no netem
#   net_down                take all away

net_id=
net_names=()

net_ns() { printf 'msyncfs-%s-%s' "$net_id" "$1"; }
net_in() {
	local name=$1
	shift
	# Not `ip netns exec`, which gives a mount namespace as well: mounts made there would be seen by nobody.
	nsenter --net="/run/netns/$(net_ns "$name")" "$@"
}
net_number() {
	local i
	for i in "${!net_names[@]}"; do [ "${net_names[i]}" != "$1" ] || { echo $((i + 1)); return; }; done
	return 1
}
net_address() { if [ "$1" = hub ]; then echo 10.79.0.1; else echo "10.79.$(net_number "$1").2"; fi; }
net_hub() { ip -n "$(net_ns hub)" "$@"; }

net_up() {
	local name n
	net_id=$$
	net_names=("$@")
	ip netns add "$(net_ns hub)" || return 1
	# Rules that drop come before that for the router's own addresses.
	net_in hub sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward' && net_hub link set lo up && net_hub addr add 10.79.0.1/32 dev lo &&
		net_hub rule add pref 1000 lookup local && net_hub rule del pref 0 || return 1
	for name; do
		n=$(net_number "$name")
		ip netns add "$(net_ns "$name")" &&
			net_hub link add "$name" type veth peer name eth0 netns "$(net_ns "$name")" &&
			net_hub addr add "10.79.$n.1/30" dev "$name" && net_hub link set "$name" up &&
			ip -n "$(net_ns "$name")" link set lo up &&
			ip -n "$(net_ns "$name")" addr add "10.79.$n.2/30" dev eth0 &&
			ip -n "$(net_ns "$name")" link set eth0 up &&
			ip -n "$(net_ns "$name")" route add default via "10.79.$n.1" || return 1
	done
}

net_cut() { net_hub link set "$1" down; }
net_heal() { net_hub link set "$1" up; }
net_half() { net_hub rule add pref 500 from "$(net_address "$1")" to "$(net_address "$2")" blackhole; }
net_whole() { net_hub rule del pref 500 from "$(net_address "$1")" to "$(net_address "$2")" blackhole; }
net_delay() {
	if [ "$2" = 0 ]; then
		net_in hub tc qdisc del dev "$1" root 2>/dev/null || :
	else
		net_in hub tc qdisc replace dev "$1" root netem delay "$2ms" 2>/dev/null
	fi
}

# A namespace goes when its name and its last process are gone, and its links with it.
net_down() {
	local name
	[ -n "$net_id" ] || return 0
	for name in "${net_names[@]}" hub; do
		[ ! -e "/run/netns/$(net_ns "$name")" ] || ip netns del "$(net_ns "$name")"
	done
	net_id=
}
