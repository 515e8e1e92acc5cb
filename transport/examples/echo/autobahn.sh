#!/bin/sh
# Runs the Autobahn test suite's fuzzing client against the echo server:
#
#	HASHPLUS_AUTOBAHN=DIR transport/examples/echo/autobahn.sh [CASE …]
#
# DIR holds an executable `wstest`. CASE is a pattern such as 7.* or 12.1.3; all
# cases run by default. Reports go to $HASHPLUS_AUTOBAHN_REPORTS, or to a
# directory that is removed. The status is 0 if every case that was to run did
# so and ended as OK, NON-STRICT or INFORMATIONAL.
set -eu

wstest=${HASHPLUS_AUTOBAHN:?names the directory that holds wstest}/wstest
cd "$(dirname "$0")/../../.."

work=$(mktemp -d)
server=
finish() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

go build -o "$work/echo" ./transport/examples/echo
"$work/echo" --ws 127.0.0.1:0 --deflate >"$work/log" 2>&1 &
server=$!
url=
for _ in 1 2 3 4 5 6 7 8 9 10; do
	url=$(sed -n 's/^listening on //p' "$work/log")
	[ -z "$url" ] || break
	sleep 0.2
done
[ -n "$url" ] || { cat "$work/log" >&2; exit 1; }

reports=${HASHPLUS_AUTOBAHN_REPORTS:-$work/reports}
cases='"*"'
expect=517
if [ $# -gt 0 ]; then
	cases=$(printf '"%s",' "$@")
	cases=${cases%,}
	expect=1
fi
cat >"$work/spec.json" <<SPEC
{
	"outdir": "$reports",
	"servers": [{"agent": "hashplus", "url": "$url"}],
	"cases": [$cases],
	"exclude-cases": [],
	"exclude-agent-cases": {}
}
SPEC
"$wstest" -m fuzzingclient -s "$work/spec.json"

count() { grep -o "\"$1\": *\"[^\"]*\"" "$reports/index.json" | sed 's/.*: *"//; s/"//' | sort | uniq -c; }
echo "behaviour:"
count behavior
echo "close behaviour:"
count behaviorClose
ran=$(count behavior | awk '{n += $1} END {print n + 0}')
bad=$( (count behavior; count behaviorClose) | awk '!/ (OK|NON-STRICT|INFORMATIONAL)$/ {n += $1} END {print n + 0}')
echo "$ran cases ran, $bad results are bad"
[ "$bad" -eq 0 ] && [ "$ran" -ge "$expect" ]
