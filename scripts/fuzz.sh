#!/usr/bin/env bash
# Fuzzes what reads foreign bytes, guided by coverage: scripts/fuzz.sh [SECONDS [TARGET..]]
#
# Without SECONDS, as CI does, a fixed number of inputs from the corpus in the tree, in about a minute.
# With SECONDS, which all targets share, it looks further, and xml-rs judges beside us; what it learns
# lies under the target directory and is used again. An input that fails is named
# and kept there. Needs a Rust toolchain and a C++ compiler (g++), no nightly: the coverage is LLVM's.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(scanner view jid sasl management stanzas)
command -v c++ >/dev/null || { echo "fuzz: needs a C++ compiler: apt-get install g++" >&2; exit 1; }
declare -A runs=([scanner]=600000 [view]=400000 [jid]=300000 [sasl]=60000 [management]=3000 [stanzas]=10000)

out=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cdebug-assertions -Coverflow-checks -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$option"
done
# Instrumented are the programs, not what builds them.
export CARGO_TARGET_DIR=$out
export "CARGO_TARGET_$(tr a-z- A-Z_ <<<"$host")_RUSTFLAGS=$flags"
cargo build --locked --quiet --release --target "$host" --manifest-path tests/fuzz/Cargo.toml

for target in "${targets[@]}"; do
    mkdir -p "$out/failed/$target"
    if [ -n "$seconds" ]; then
        learnt=$out/corpus/$target
        mkdir -p "$learnt"
        export FUZZ_ORACLE=1
        limit=(-max_total_time=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]})))
    else
        learnt=$(mktemp -d)
        limit=(-seed=1 -runs="${runs[$target]}")
    fi
    log=$out/$target.log
    if ! "$out/$host/release/$target" "${limit[@]}" -timeout=10 -rss_limit_mb=4096 -max_len=4096 \
        -artifact_prefix="$out/failed/$target/" "$learnt" "tests/corpus/fuzz/$target" \
        >"$log" 2>&1; then
        tail -40 "$log" >&2
        echo "fuzz: $target failed; its input lies in $out/failed/$target" >&2
        exit 1
    fi
    [ -n "$seconds" ] || rm -rf "$learnt"
    echo "fuzz: $target: $(grep -E '^Done' "$log" | tail -1)"
done
