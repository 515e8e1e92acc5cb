#!/bin/sh
# diff.sh BASE BENCH PACKAGE... runs the micro-benchmarks that match BENCH at
# commit BASE and in the working tree, in turn, so that a machine's changing load
# falls on both, and compares them with benchstat. COUNT is how many rounds,
# BENCHTIME how long each benchmark runs in one.
set -eu
base=$1 bench=$2
shift 2
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/base" "$dir/old" "$dir/new"
git archive "$base" | tar x -C "$dir/base"
packages=$(go list "$@")
# A package without tests leaves no binary.
(cd "$dir/base" && go test -c -o "$dir/old/" $(go list "$@" 2>/dev/null)) >/dev/null
go test -c -o "$dir/new/" $packages >/dev/null

for round in $(seq "${COUNT:-6}"); do
	echo "round $round" >&2
	for package in $packages; do
		folder=${package#*/}
		for side in old new; do
			binary=$dir/$side/${package##*/}.test
			root=.
			test $side = new || root=$dir/base
			test -x "$binary" || continue
			(cd "$root/$folder" && "$binary" -test.run '^$' -test.bench "$bench" -test.benchmem \
				-test.benchtime "${BENCHTIME:-200ms}") >>"$dir/$side.txt"
		done
	done
done
go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da "$base=$dir/old.txt" "here=$dir/new.txt"
