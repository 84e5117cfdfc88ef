#!/usr/bin/env bash
# A large store: accounts with keys and rosters of 20 are made, exported and imported; then the server
# is started, killed and started again over them.
#
#   scripts/million.sh [--accounts N] [--bin DIRECTORY]
#
# Says how long each took, from the start to the first login too, and what memory an account costs
# that is not in use. Needs Debian 12, a Rust toolchain and 6 KB of disk for each account.
set -euo pipefail
cd "$(dirname "$0")/.."

accounts=1000000
port=25322
bin=""
while [ $# -gt 0 ]; do
    case "$1" in
        --accounts) accounts=${2:?--accounts takes a number}; shift 2 ;;
        --bin) bin=${2:?--bin takes a directory with both binaries}; shift 2 ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) echo "million: unknown argument $1 (try --help)" >&2; exit 1 ;;
    esac
done
if [ -z "$bin" ]; then
    cargo build --locked --release
    bin=${CARGO_TARGET_DIR:-target}/release
fi

work=$(mktemp -d)
server=""
trap '[ -z "$server" ] || kill -KILL "$server"; rm -rf "$work"' EXIT
for name in made imported empty; do
    printf 'domain = "bench.localhost"\ndata = "%s"\nshards = 1\n' "$work/$name"
    printf '[listen]\nc2s = "127.0.0.1:%d"\nc2s_tls = "127.0.0.1:%d"\n' "$port" "$((port + 1))"
    printf '[tls]\nrequired = false\n[auth]\nplain_without_tls = true\n'
done | awk -v d="$work" '/^domain/ { n++ } { print > (d "/" n ".toml") }'

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f", b - a }'; }
said=""
say() { said+=$(printf '%-44s%s' "$1" "$2")$'\n'; echo "million: $1 $2" >&2; }

start() {
    rm -f "$work/ready"
    "$bin/vorpal" serve --config "$work/$1.toml" --ready-file "$work/ready" >"$work/log" 2>&1 &
    server=$!
    until [ -e "$work/ready" ]; do
        kill -0 "$server" || { tail -5 "$work/log" >&2; exit 1; }
        sleep 0.01
    done
}
finish() {
    kill "-$1" "$server"
    wait "$server" || true
    server=""
}
log_in() {
    "$bin/loadgen" --domain bench.localhost --tls none --port "$port" --password bench \
        --clients "$1" --scenario idle --warmup 0 --duration 0.1 --quiet >/dev/null
}
resident() { awk '/^VmRSS/ { print $2 * 1024 }' "/proc/$server/status"; }

began=$(now)
"$bin/vorpal" user make 'u%d' --count "$accounts" --clique 21 --password bench \
    --config "$work/1.toml" >/dev/null 2>&1
say "made $accounts accounts, rosters of 20, s" "$(since "$began")"
began=$(now)
"$bin/vorpal" export --config "$work/1.toml" "$work/all.xml" >/dev/null
say "exported (XEP-0227), s" "$(since "$began")"
rm -rf "$work/made"
began=$(now)
"$bin/vorpal" import --config "$work/2.toml" "$work/all.xml" >/dev/null
say "imported, s" "$(since "$began")"
say "the file, bytes for each account" "$(($(stat -c %s "$work/all.xml") / accounts))"
say "the store, bytes for each account" "$(($(du -sb "$work/imported" | cut -f1) / accounts))"
rm "$work/all.xml"

start 3
without=$(resident)
finish TERM
began=$(now)
start 2
log_in 1
say "start to first login, s" "$(since "$began")"
sleep 2
say "memory over an empty server's, bytes" "$(($(resident) - without))"
log_in 1000
say "the same after 1,000 came and went" "$(($(resident) - without))"
finish KILL
began=$(now)
start 2
log_in 1
say "start to first login after a kill, s" "$(since "$began")"
finish TERM
echo
echo "$said"
