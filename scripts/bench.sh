#!/usr/bin/env bash
# Measures the server with the load generator and leaves a report under results/: every delivery
# verified, the floor (a relay that parses nothing) in the same run.
#
#   scripts/bench.sh                    the whole suite, under ten minutes with the build
#   scripts/bench.sh --clients 100000   that many clients held by one server, with chat among them
#   scripts/bench.sh --only chat-2000   the runs whose name begins so
#   scripts/bench.sh --tls              what TLS adds to a stanza, in 40 turns with the same in clear: 10 minutes
#   scripts/bench.sh --goals            latency at half of the maximum rate, cost against size, what sessions hold: 9 minutes
#   scripts/bench.sh --peers            Vorpal, Debian's Prosody and ejabberd, and the floor in turns: 11 minutes
#   scripts/bench.sh --criterion        the criterion benches of bench/ instead: 3 minutes and the build
#   scripts/bench.sh --bin DIRECTORY    with these binaries; LOADGEN_COMMIT says what they were built from
#
# Needs Debian 12, a Rust toolchain and two cores: the server is pinned to the first, the generator
# to the second. Ends non-zero where a delivery was lost or a run could not be measured.
set -uo pipefail
cd "$(dirname "$0")/.."

clients=""
only=""
port=25222
bin=""
keep=results
criterion=""
start_seconds_max=30
stop_seconds_max=30
tls=""
peers=""
goals=""
while [ $# -gt 0 ]; do
    case "$1" in
        --clients) clients=${2:?--clients takes a number}; shift 2 ;;
        --only) only=${2:?--only takes the beginning of a name}; shift 2 ;;
        --criterion) criterion=yes; shift ;;
        --tls) tls=yes; shift ;;
        --peers) peers=yes; shift ;;
        --goals) goals=yes; shift ;;
        --port) port=${2:?--port takes a number}; shift 2 ;;
        --bin) bin=${2:?--bin takes a directory with both binaries}; shift 2 ;;
        --results) keep=${2:?--results takes a directory}; shift 2 ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) echo "bench: unknown argument $1 (try --help)" >&2; exit 1 ;;
    esac
done

if [ -n "$peers" ] && [ -n "$only$clients$tls$criterion$goals" ]; then
    echo "bench: --peers goes with --port, --bin and --results only" >&2
    exit 1
fi
for number in "$clients" "$port"; do
    case $number in
        *[!0-9]*) echo "bench: $number is no whole number (--clients and --port take one)" >&2; exit 1 ;;
    esac
done

. scripts/need.sh
. scripts/stop.sh
need bench cc:gcc make:make taskset:util-linux /usr/include/string.h:libc6-dev \
    ${criterion:+python3:python3} ${peers:+python3:python3} ${goals:+python3:python3} || exit 1

if [ -n "$peers" ]; then
    . scripts/peers/turns.sh
    # What they would start by themselves is the operator's decision.
    need --say bench prosody:prosody erl:erlang-base ejabberdctl:ejabberd || exit 1
fi
if [ -z "$bin" ] || [ -n "$criterion" ]; then
    need_cargo bench || exit 1
fi
foreign=$bin
# The benches are built from this tree whatever --bin says.
[ -z "$criterion" ] || foreign=""
if [ -z "$bin$criterion" ]; then
    cargo build --locked --release || exit 1
    bin=${CARGO_TARGET_DIR:-target}/release
fi
vorpal=$bin/vorpal
loadgen=$bin/loadgen

# The commit under test. The results of earlier runs that lie about make no other of it. Of binaries
# that were built elsewhere only the caller knows it.
if [ -n "$foreign" ]; then
    export LOADGEN_COMMIT=${LOADGEN_COMMIT:-unknown (--bin)}
elif [ -z "${LOADGEN_COMMIT:-}" ] && commit=$(git rev-parse --short=12 HEAD 2>/dev/null); then
    git diff-index --quiet HEAD -- . ':(exclude)results' || commit+=-dirty
    export LOADGEN_COMMIT=$commit
fi

ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
work=$(mktemp -d)
server=""
out=$keep/$(date -u +%Y-%m-%d)-$(hostname)
mkdir -p "$out" || { echo "bench: $out cannot be made; give another with --results" >&2; exit 1; }

stop_server() {
    [ -n "$server" ] || return 0
    stop_child bench "$server" "$stop_seconds_max"
    server=""
}
trap 'stop_server; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# configure SHARDS [CONNECTIONS [DURABILITY [IDLE_SPIN_US [ARCHIVE]]]]: an empty SHARDS leaves the number to the server, which takes more
# than there are cores where so many CONNECTIONS do not fit the limit of descriptors otherwise. There are archives with ARCHIVE only:
# what is routed is measured without, as it always was.
configure() {
    {
        echo 'domain = "bench.localhost"'
        echo "data = \"$work/data\""
        [ -z "$1" ] || echo "shards = $1"
        [ -z "${4:-}" ] || echo "idle_spin_us = $4"
        echo '[listen]'
        echo "c2s = \"127.0.0.1:$port\""
        echo "c2s_tls = \"127.0.0.1:$((port + 1))\""
        echo "http = \"127.0.0.1:$((port + 2))\""
        echo '[tls]'
        echo 'required = false'
        echo '[auth]'
        echo 'plain_without_tls = true'
        [ -z "${2:-}" ] || printf '[limits]\nconnections_max = %d\n' "$2"
        printf '[archive]\nenabled = %s\n' "$([ -z "${5:-}" ] && echo false || echo true)"
        [ -z "${3:-}" ] || printf '[durability]\nmode = "%s"\n' "$3"
    } >"$work/vorpal.toml"
}

# start_server CORES: fails where it does not start, and says why.
start_server() {
    local tries
    rm -f "$work/ready"
    taskset -c "$1" "$vorpal" serve --config "$work/vorpal.toml" --ready-file "$work/ready" \
        >"$work/log" 2>&1 &
    server=$!
    for ((tries = 0; tries < start_seconds_max * 10; tries++)); do
        [ -e "$work/ready" ] && return 0
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "bench: the server did not start:" >&2
    tail -5 "$work/log" >&2
    return 1
}

make_accounts() {
    "$vorpal" user make "$1" --count "$2" --password bench --clique "$3" \
        --config "$work/vorpal.toml" >/dev/null || exit 1
}

worst=0
ran=()
shown=()
# measure NAME CORES ARGUMENTS..: a fresh server, one run, its files.
measure() {
    local name=$1 cores=$2 code
    shift 2
    case "$name" in "$only"*) ;; *) return 0 ;; esac
    for attempt in 1 2; do
        # What an earlier run of the day left is not this one's, should this one leave nothing.
        rm -f "$out/$name.json"
        start_server "$cores" || exit 1
        "$loadgen" --name "$name" --domain bench.localhost --password bench \
            --server-pid "$server" --server-config "$work/vorpal.toml" --json "$out/$name.json" --history "$keep/history.jsonl" "$@"
        code=$?
        stop_server
        # An invalid run says nothing about the server: a busy machine deserves a second chance.
        [ "$code" -eq 3 ] && [ "$attempt" -eq 1 ] || break
        echo "bench: $name was invalid, once more"
    done
    [ -e "$out/$name.json" ] && ran+=("$out/$name.json")
    if [ "$code" -ne 0 ]; then
        echo "bench: $name ended with $code" >&2
        tail -3 "$work/log" >&2
        [ "$worst" -ne 0 ] && [ "$code" -eq 3 ] || worst=$code
    fi
}

suite() {
    local plain=(--tls none --port "$port")
    local secure=(--tls direct --insecure --port "$((port + 1))")
    configure 1
    make_accounts 'u%d' 4000 20
    make_accounts 'm%d' 10000 1
    measure login-plain 0 "${plain[@]}" --scenario login --clients 200 --duration 5 --warmup 1
    measure login-tls 0 "${secure[@]}" --scenario login --clients 200 --duration 5 --warmup 1
    measure chat-2000 0 "${plain[@]}" --clients 2000 --closed --window 1 --duration 8 --with-floor
    measure chat-100 0 "${plain[@]}" --clients 100 --closed --window 4 --duration 8 --with-floor
    measure presence-20 0 "${plain[@]}" --scenario presence --clients 100 --closed --duration 8 \
        --with-floor
    measure chat-2000-tls 0 "${secure[@]}" --clients 2000 --closed --duration 8 --with-floor \
        --with-plain "$port"
    measure chat-100-tls 0 "${secure[@]}" --clients 100 --closed --window 4 --duration 8 \
        --with-floor --with-plain "$port"
    # What TLS adds to a stanza that has a record of its own: by the clock, since clients that wait
    # for one another set another pace with TLS than without, and so other batches.
    measure chat-2000-paced-tls 0 "${secure[@]}" --clients 2000 --rate 60000 --duration 12 \
        --with-plain "$port"
    # What WebSocket frames add (RFC 7395).
    local web=(--tls none --websocket --port "$((port + 2))" --with-floor --with-plain "$port")
    measure chat-2000-web 0 "${web[@]}" --clients 2000 --closed --duration 8
    measure chat-100-web 0 "${web[@]}" --clients 100 --closed --window 4 --duration 8
    measure chat-open 0 "${plain[@]}" --clients 500 --rate 20000 --duration 6
    measure memory-plain 0 "${plain[@]}" --user 'm%d' --scenario idle --clients 10000 --duration 4 \
        --warmup 1
    measure memory-tls 0 "${secure[@]}" --user 'm%d' --scenario idle --clients 10000 --duration 4 \
        --warmup 1
    # Stream management, with nothing stored and with everything durable before it is acknowledged;
    # server and generator share both cores.
    local managed=("${plain[@]}" --clients 200 --stream-management --duration 6)
    for mode in memory archive full; do
        configure 1 "" "$mode"
        # Storage needs the time that a generator that awaits its schedule awake would take; the
        # runs with nothing stored have the same, for its pace makes the server's batches.
        measure "managed-$mode" 0,1 "${managed[@]}" --rate 62000 --no-spin
        measure "managed-$mode-closed" 0,1 "${managed[@]}" --closed --window 2
    done
    # The same with all of it in two archives.
    configure 1 "" full "" archive
    measure managed-archived-closed 0,1 "${managed[@]}" --closed --window 2
    configure 2
    measure two-shards 0,1 "${plain[@]}" --clients 500 --closed --window 2 --partners 8 --duration 6
}

# What TLS adds to a stanza that has a record of its own is less than what the machine's moments do
# to a run of twelve seconds.
turns() {
    local load=(--tls direct --insecure --port "$((port + 1))" --duration 80 --with-plain "$port")
    configure 1
    make_accounts 'u%d' 4000 20
    measure turns-tls 0 "${load[@]}" --clients 2000 --closed
    measure turns-tls-paced 0 "${load[@]}" --clients 2000 --rate 60000
    # And where a write carries sixteen stanzas and more.
    measure turns-tls-batched 0 "${load[@]}" --clients 50 --closed --window 32
}

# What the loads of the suite do not show: latency beside the floor's where neither core is used up, with
# the server asleep between stanzas and awake; the same load with more clients; what a session holds.
goals() {
    local plain=(--tls none --port "$port") secure=(--tls direct --insecure --port "$((port + 1))")
    local steady=("${plain[@]}" --rate 50000 --duration 20 --with-floor)
    configure 1
    make_accounts 'u%d' 16000 20
    make_accounts 'm%d' 100000 1
    for spin in 0 50; do
        configure 1 "" "" "$spin"
        measure "half-rate-spin-$spin" 0 "${steady[@]}" --clients 2000
        measure "half-rate-100-spin-$spin" 0 "${steady[@]}" --clients 100
    done
    local size
    for size in 1000 4000 16000 50000 100000; do
        # One shard where so many fit it.
        [ "$size" -gt 16000 ] && configure "" 101000 || configure 1
        measure "size-$size" 0 "${plain[@]}" --user 'm%d' --clients "$size" --rate 20000 --duration 10
    done
    local idle=(--scenario idle --clients 16000 --duration 2 --warmup 0.5)
    configure 1
    measure session-plain 0 "${plain[@]}" "${idle[@]}" --user 'm%d'
    measure session-tls 0 "${secure[@]}" "${idle[@]}" --user 'm%d'
    measure session-contacts 0 "${plain[@]}" "${idle[@]}"
    local mode
    for mode in memory archive full; do
        configure 1 "" "$mode"
        measure "session-managed-$mode" 0 "${plain[@]}" "${idle[@]}" --user 'm%d' --stream-management
    done
}

held() {
    configure "" "$((clients + 1000))"
    make_accounts 'm%d' "$clients" 1
    local load=(--user 'm%d' --clients "$clients" --partners 4 --rate 10000 --duration 20)
    measure "held-$clients-plain" 0 --tls none --port "$port" "${load[@]}"
    measure "held-$clients-tls" 0 --tls direct --insecure --port "$((port + 1))" "${load[@]}"
}

# Each part of the server alone, beside general XML readers: medians, with what they may be wrong by.
benches() {
    local bench names=()
    for bench in scan view route fanout mesh tls archive; do
        names+=(--bench "$bench")
    done
    # What earlier runs left under the target directory is not part of this one.
    CRITERION_HOME=$work/criterion cargo bench --locked "${names[@]}" -- \
        --warm-up-time 1 --measurement-time 3 || exit 1
    python3 scripts/criterion.py "$work/criterion" "$out/criterion.json" || exit 1
    echo "bench: $out/criterion.json has the medians"
}

if [ -n "$criterion" ]; then
    benches
    exit
fi
if [ -n "$peers" ]; then
    peers
    exit
fi
if [ -n "$tls" ]; then
    turns
elif [ -n "$goals" ]; then
    goals
elif [ -n "$clients" ]; then
    held
else
    suite
fi
[ "${#ran[@]}" -gt 0 ] || { echo "bench: nothing was measured" >&2; exit 1; }
# The folder of this run is gone afterwards and says nothing to anybody.
sed -i "s|$work|DATA|g" "${ran[@]}"
# The day's page shows what other invocations left there, too, but for the benches and the peers' table, which are no runs.
for file in "$out"/*.json; do
    case "${file##*/}" in criterion.json | peers.json) ;; *) shown+=("$file") ;; esac
done
"$loadgen" report "${shown[@]}" --out "$out/report.html" || exit 1
[ -z "$goals" ] || python3 scripts/goals.py "$out" || exit 1
echo
echo "bench: $out/report.html has the plots; one line for each run is in $keep/history.jsonl"
exit "$worst"
