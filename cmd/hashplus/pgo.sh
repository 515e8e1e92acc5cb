#!/bin/sh
# Refreshes default.pgo, the profile that `go build` optimises hashplus by, from
# runs of the bench suite. SECONDS_EACH is how long each scenario is measured.
set -eu
cd "$(dirname "$0")/../.."
dir=$(mktemp -d)
broker=
trap 'test -z "$broker" || kill "$broker"; rm -rf "$dir"' EXIT
go build -pgo=off -tags profile -o "$dir/hashplus" ./cmd/hashplus
go build -o "$dir/hashbench" ./bench/hashbench

profile() { # name, scenario and its flags
	name=$1
	shift
	HASHPLUS_CPUPROFILE=$dir/$name.prof "$dir/hashplus" serve --ws 127.0.0.1:0 --log-level error >"$dir/$name.out" &
	broker=$!
	until url=$(sed -n 's/^listening //p' "$dir/$name.out") && test -n "$url"; do sleep 0.1; done
	"$dir/hashbench" "$@" --url "$url" --pid "$broker" --quiet
	kill "$broker"
	wait "$broker"
	broker=
}
for_seconds="--duration=${SECONDS_EACH:-5}s --warmup=1s"
# shellcheck disable=SC2086 # two flags
{
	profile fanout fanout --burst=8 $for_seconds
	profile fanout-single fanout --burst=1 $for_seconds
	profile fanout-qos1 fanout --burst=8 --qos=1 $for_seconds
	profile fanin fanin --burst=8 $for_seconds
	profile fanin-qos1 fanin --burst=8 --qos=1 $for_seconds
	profile pairs-1 pairs --window=1 $for_seconds
	profile pairs-16 pairs --window=16 $for_seconds
	profile pairs-qos1 pairs --window=8 --qos=1 $for_seconds
	profile request request $for_seconds
	profile wildcard wildcard $for_seconds
	profile shared shared $for_seconds
	profile retained retained
	profile connect connect --sessions=10000
}
go tool pprof -proto "$dir"/*.prof >"$dir/default.pgo"
mv "$dir/default.pgo" cmd/hashplus/default.pgo
