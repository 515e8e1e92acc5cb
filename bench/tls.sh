#!/usr/bin/env bash
# What TLS costs: hashplus and mosquitto over wss with the same certificate and
# cipher, and hashplus over ws beside them, in turn. Writes JSON to the folder $1.
#
#   bench/tls.sh RESULTS [ROUNDS]
#
# hashplus is ./hashplus (make build), mosquitto the one in the path. Needs openssl.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd) rounds=${2:-3}
work=$(mktemp -d)
chmod 755 "$work" # mosquitto changes its user, as root
pid=
stop() { if [ -n "$pid" ]; then kill "$pid" && wait "$pid" || true; pid=; fi; }
trap 'stop; rm -rf "$work"' EXIT
PATH=$PATH:/usr/sbin

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=bench \
	-addext 'subjectAltName=IP:127.0.0.1' -keyout "$work/key" -out "$work/cert" 2>/dev/null
chmod 644 "$work/key"
cat >"$work/mosquitto.conf" <<CONF
allow_anonymous true
persistence false
max_queued_messages 0
set_tcp_nodelay true
log_type none
listener 18442 127.0.0.1
listener 18443 127.0.0.1
protocol websockets
certfile $work/cert
keyfile $work/key
ciphers_tls1.3 TLS_AES_128_GCM_SHA256
CONF
go build -o "$work/hashbench" ./bench/hashbench

start() { # NAME: sets pid and url
	case $1 in
	hashplus) url=wss://127.0.0.1:18444/mqtt
		./hashplus serve --wss 127.0.0.1:18444 --tls-cert "$work/cert" --tls-key "$work/key" --log-level error >/dev/null & ;;
	hashplus-ws) url=ws://127.0.0.1:18445/mqtt
		./hashplus serve --ws 127.0.0.1:18445 --log-level error >/dev/null & ;;
	mosquitto) url=wss://127.0.0.1:18443/mqtt
		mosquitto -c "$work/mosquitto.conf" & ;;
	esac
	pid=$!
	local port=${url#*1:}
	until (exec 3<>"/dev/tcp/127.0.0.1/${port%%/*}") 2>/dev/null; do sleep 0.1; done
}
run() { # CASE SCENARIO FLAGS...
	local name=$1 broker
	shift
	for round in $(seq "$rounds"); do
		for broker in hashplus mosquitto hashplus-ws; do
			start "$broker"
			"$work/hashbench" "$@" --url "$url" --insecure --pid "$pid" --label "$broker" --quiet \
				--json "$out/$name.$broker.$round.json" >"$out/$name.$broker.$round.txt" || echo "$name $broker: failed" >&2
			stop
		done
	done
}
run connect connect --sessions 3000
# Without the post-quantum key exchange, which OpenSSL 3.0 does not speak.
GODEBUG=tlsmlkem=0 run connect-x25519 connect --sessions 3000
run idle idle --steps 500,4500
run fanout-single fanout --subscribers 500 --burst 1 --duration 4s --warmup 1s
run fanout-bursts fanout --subscribers 500 --burst 8 --duration 4s --warmup 1s
run pairs pairs --pairs 200 --duration 4s --warmup 1s
