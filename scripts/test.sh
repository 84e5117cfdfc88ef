#!/usr/bin/env bash
# Every test there is: units, simulation, processes over real sockets, and clients others wrote.
#
# Needs Debian 12 and a Rust toolchain; as root it installs what else is missing, otherwise it says
# what that is. Peer servers, browsers and the long runs (scripts/long.sh) stay out.
# Where io_uring is refused the process tests fail: a skipped test would say nothing.
set -uo pipefail
cd "$(dirname "$0")/.."

. scripts/need.sh
venv=()
python3 -c "import ensurepip" 2>/dev/null || venv=(:python3-venv)
need test cc:gcc c++:g++ make:make python3:python3 openssl:openssl tmux:tmux profanity:profanity \
    node:nodejs npm:npm \
    go-sendxmpp:go-sendxmpp valgrind:valgrind /usr/include/string.h:libc6-dev "${venv[@]}" || exit 1
need_cargo test || exit 1

# Thousands of sockets are open at once in some tests.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

output=$(mktemp)
trap 'rm -f "$output"' EXIT

# One build serves all: the process tests and the clients drive the binaries that it leaves.
cargo build --locked --workspace --bins || exit 1
cargo test --locked --workspace --no-fail-fast 2>&1 | tee "$output"
rust=${PIPESTATUS[0]}
tests/clients/run.sh 2>&1 | tee -a "$output"
clients=${PIPESTATUS[0]}
# The hot path's instructions, counted under callgrind: the same on every machine of a kind.
cargo bench --locked -p sim --bench instructions 2>&1 | tee -a "$output"
gate=${PIPESTATUS[0]}
# A minute of foreign bytes, guided by coverage.
scripts/fuzz.sh
fuzz=$?

# cargo's lines are "test result: ok. 5 passed; 0 failed; ..", pytest's last is "5 passed in 3 s".
count() {
    { grep -E '^test result:' "$output"; grep -E '^[^a-z]*[0-9]+ (passed|failed).* in [0-9.]+s' "$output"; } |
        grep -oE "[0-9]+ $1" | awk '{ sum += $1 } END { print sum + 0 }'
}
passed=$(count passed)
failed=$(($(count failed) + $(count error)))
if [ "$rust" -ne 0 ] || [ "$clients" -ne 0 ] || [ "$gate" -ne 0 ] ||
    [ "$fuzz" -ne 0 ]; then
    # A crash or a build error fails without being counted by anyone.
    [ "$failed" -gt 0 ] || failed=1
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
