# Runs a Node.js script in a network of its own, with a redis-server on another host of it. Packets to that host get lost
# while its name in the neighbour table is wrong: TCP goes on sending them, as it does on a broken network.
#
# Arguments: redis-server, an empty folder, Node.js, the script. The script's argument is the server's hardware address.
set -e
server=$1 folder=$2
shift 2
ip link set lo up
unshare -n sleep 600 &
host=$!
trap 'kill $host $redis 2>/dev/null' EXIT
until [ "$(readlink /proc/$host/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.02; done
ip link add v0 type veth peer name v1 netns $host
ip addr add 10.9.0.1/24 dev v0
ip link set v0 up
nsenter -t $host -n ip addr add 10.9.0.2/24 dev v1
nsenter -t $host -n ip link set v1 up
nsenter -t $host -n "$server" --port 7001 --bind 10.9.0.2 --protected-mode no --save "" --appendonly no --dir "$folder" >/dev/null &
redis=$!
address=$(nsenter -t $host -n ip -o link show v1 | sed 's/.*link\/ether \([0-9a-f:]*\) .*/\1/')
"$@" "$address"
