#!/usr/bin/env bash
# Fuzzes what reads foreign bytes, guided by coverage: scripts/fuzz.sh [SECONDS] [TARGET..]
#
# SECONDS (60 unless told) is what all targets get together; what they learn lies under the target
# directory and is used again. An input that fails is named and kept there. Needs a Rust toolchain
# and a C++ compiler (g++), no nightly: the coverage is LLVM's own.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
[ "${#targets[@]}" -gt 0 ] || targets=(scanner view jid sasl management)
command -v c++ >/dev/null || { echo "fuzz: needs a C++ compiler: apt-get install g++" >&2; exit 1; }

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

each=$(((seconds + ${#targets[@]} - 1) / ${#targets[@]}))
for target in "${targets[@]}"; do
    mkdir -p "$out/corpus/$target" "$out/failed/$target"
    log=$out/$target.log
    if ! "$out/$host/release/$target" -max_total_time="$each" -timeout=10 -rss_limit_mb=4096 \
        -max_len=4096 -artifact_prefix="$out/failed/$target/" "$out/corpus/$target" \
        "tests/corpus/fuzz/$target" >"$log" 2>&1; then
        tail -40 "$log" >&2
        echo "fuzz: $target failed; its input lies in $out/failed/$target" >&2
        exit 1
    fi
    echo "fuzz: $target: $(grep -E '^Done|DONE' "$log" | tail -1)"
done
