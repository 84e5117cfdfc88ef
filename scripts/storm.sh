#!/usr/bin/env bash
# Shows that logins by PLAIN never hold up a shard: 200 clients chat by the clock on a server of one
# shard, at first alone and then beside 1,000 clients that log in by PLAIN again and again. Each
# such login costs a PBKDF2, which must not be paid by the shard. The two take turns, and the
# medians of the rounds' p50 and p99 are printed with their ratio: what else the machine does hits
# both. Takes under a minute; ends non-zero where a delivery was lost, or where p99 beside the logins
# is above RATIO_MAX times that alone.
#
#   scripts/storm.sh [--port N] [--bin DIRECTORY] [--seconds S] [--rounds N] [--cores LIST]
#   scripts/storm.sh --clients 100000
#
# The second shows the other storm, in which so many clients come at once, by SCRAM-SHA-256: how fast they are let in, that
# nobody is refused, and what those who are in have of it. It ends non-zero where somebody did not get in, a
# delivery was lost, or p99 of those who are in was above P99_MS_MAX.
#
# The server has core 0, its derivations too, and the generators have core 1, the logins at the
# lowest priority; --cores gives the server others.
set -uo pipefail
cd "$(dirname "$0")/.."

port=26222
bin=${CARGO_TARGET_DIR:-target}/release
seconds=4
rounds=3
cores=0
clients=""
while [ $# -gt 0 ]; do
    case "$1" in
        --port) port=${2:?--port takes a number}; shift 2 ;;
        --bin) bin=${2:?--bin takes a directory with both binaries}; shift 2 ;;
        --seconds) seconds=${2:?--seconds takes a number}; shift 2 ;;
        --rounds) rounds=${2:?--rounds takes a number}; shift 2 ;;
        --clients) clients=${2:?--clients takes a number}; shift 2 ;;
        --cores) cores=${2:?--cores takes a list}; shift 2 ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) echo "storm: unknown argument $1 (try --help)" >&2; exit 1 ;;
    esac
done
vorpal=$bin/vorpal
loadgen=$bin/loadgen
for binary in "$vorpal" "$loadgen"; do
    [ -x "$binary" ] || { echo "storm: no $binary; run: cargo build --release" >&2; exit 1; }
done

. scripts/stop.sh
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
work=$(mktemp -d)
server=""
storm=""
chatting=""
stop() {
    for pid in $chatting $storm $server; do
        stop_child storm "$pid" 10
    done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

cat >"$work/vorpal.toml" <<END
domain = "bench.localhost"
data = "$work/data"
log = "warn"
${clients:+#}shards = 1
[listen]
c2s = "127.0.0.1:$port"
c2s_tls = []
[tls]
required = false
[auth]
plain_without_tls = true
[archive]
enabled = false
${clients:+[limits]
connections_max = $((${clients:-0} + 1000))}
END
for accounts in 'u%d 200' "p%d ${clients:-1000}"; do
    # Pattern and number are two words.
    set -- $accounts
    "$vorpal" user make "$1" --count "$2" --password bench --config "$work/vorpal.toml" \
        >/dev/null 2>"$work/made" || { cat "$work/made" >&2; exit 1; }
done
taskset -c "$cores" "$vorpal" serve --config "$work/vorpal.toml" --ready-file "$work/ready" \
    >"$work/log" 2>&1 &
server=$!
for _ in $(seq 200); do
    [ -e "$work/ready" ] && break
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
[ -e "$work/ready" ] || { echo "storm: the server did not start" >&2; exit 1; }

load=(--domain bench.localhost --password bench --port "$port" --tls none --quiet)
worst=0
# judge NAME CODE: an invalid run (3) still has its numbers, and whoever reads them is told.
judge() {
    [ "$2" -ne 0 ] || return 0
    echo "storm: $1 ended with $2" >&2
    grep -iE 'invalid|fail' "$work/$1.out" | head -3 >&2
    [ "$2" -eq 3 ] || worst=$2
}
# begin_chat NAME
begin_chat() {
    "$loadgen" "${load[@]}" --name "$1" --clients 200 --rate 2000 --warmup 1 \
        --duration "$seconds" --server-pid "$server" --json "$work/$1.json" >"$work/$1.out" 2>&1 &
    chatting=$!
}
# chat NAME
chat() {
    begin_chat "$1"
    wait "$chatting"
    judge "$1" $?
    chatting=""
}

if [ -n "$clients" ]; then
    # The chat is over before the last are in on a slow machine; there is enough of it on a fast one.
    seconds=$((clients / 6000 + 2))
    begin_chat beside
    sleep 3
    nice -n 19 "$loadgen" "${load[@]}" --name logins --user 'p%d' --clients "$clients" --scenario idle \
        --duration "$seconds" --warmup 1 --json "$work/logins.json" >"$work/logins.out" 2>&1 &
    storm=$!
    wait "$chatting"
    judge beside $?
    chatting=""
    wait "$storm"
    judge logins $?
    storm=""
    [ -e "$work/beside.json" ] && [ -e "$work/logins.json" ] || { cat "$work"/*.out >&2; exit 1; }
    python3 - "$work" <<'END'
import json
import pathlib
import sys

P99_MS_MAX = 10
beside, logins = (json.loads((pathlib.Path(sys.argv[1]) / f"{name}.json").read_text())
                  for name in ("beside", "logins"))
whole = next(times for times in logins["phases"] if times["name"] == "login in all")
seconds = logins["slices"][0]["at"]
latency = beside["latency"]
print(f"{whole['count']:,} clients came at once and are in after {seconds:.0f} s, "
      f"each in {whole['p50_us'] / 1e3:.0f} ms (p50) and {whole['p99_us'] / 1e3:.0f} ms (p99)")
print(f"200 who were in and chat, 2,000 stanzas a second: {latency['p50_us'] / 1e3:.2f} ms (p50), "
      f"{latency['p99_us'] / 1e3:.2f} ms (p99), {beside['verdict']['lost']} lost; "
      f"their generator was {beside['generator']['lag']['p99_us'] / 1e3:.2f} ms late (p99)")
if latency["p99_us"] / 1e3 > P99_MS_MAX:
    sys.exit(f"storm: p99 is above {P99_MS_MAX} ms")
END
    code=$?
    [ "$worst" -ne 0 ] || worst=$code
    exit "$worst"
fi

for round in $(seq "$rounds"); do
    chat "alone-$round"
    nice -n 19 "$loadgen" "${load[@]}" --name logins --user 'p%d' --clients 1000 \
        --scenario login --mechanism PLAIN --warmup 1 --duration $((seconds + 2)) \
        --json "$work/logins-$round.json" \
        >"$work/logins-$round.out" 2>&1 &
    storm=$!
    sleep 1
    chat "beside-$round"
    wait "$storm"
    judge "logins-$round" $?
    storm=""
done

python3 - "$work" <<'END'
import json
import pathlib
import statistics
import sys


def runs(name):
    found = sorted(pathlib.Path(sys.argv[1]).glob(f"{name}-*.json"))
    return [json.loads(path.read_text()) for path in found]


def median(name, read):
    return statistics.median(read(run) for run in runs(name))


print("200 clients chatting, 2,000 stanzas a second, one shard; medians of the rounds")
print(f"{'':24}{'p50 us':>10}{'p99 us':>10}{'lag p99 us':>12}")
seen = {}
for name, title in (("alone", "alone"), ("beside", "beside PLAIN logins")):
    seen[name] = [median(name, lambda run, key=key: run["latency"][key])
                  for key in ("p50_us", "p99_us")]
    lag = median(name, lambda run: run["generator"]["lag"]["p99_us"])
    print(f"{title:24}{seen[name][0]:10.0f}{seen[name][1]:10.0f}{lag:12.0f}")
# Flat, but for what two busy cores do to any clock.
RATIO_MAX = 2
ratios = [beside / alone for alone, beside in zip(seen["alone"], seen["beside"])]
print(f"{'ratio':24}{ratios[0]:10.2f}{ratios[1]:10.2f}")
rate = median("logins", lambda run: run["rate"])
each = median("logins", lambda run: run["latency"]["p50_us"]) / 1e3
print(f"logins: {rate:.0f} a second by PLAIN from 1,000 clients, each {each:.0f} ms (p50)")
if ratios[1] > RATIO_MAX:
    sys.exit(f"storm: p99 is {ratios[1]:.1f} times that alone, more than {RATIO_MAX}")
END
code=$?
[ "$worst" -ne 0 ] || worst=$code
exit "$worst"
