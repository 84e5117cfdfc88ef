#!/usr/bin/env bash
# The runs that take hours, on a nightly toolchain: scripts/long.sh [fuzz|miri|loom|sim|all] [MINUTES]
#
# MINUTES (10 unless told) is what each fuzz target and the simulation get; the other two end by
# themselves. Artifacts of a crash lie in tests/fuzz/artifacts; a failed simulation prints its seed.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
minutes=${2:-10}
toolchain=${NIGHTLY:-nightly}

need() {
    "${@:2}" >/dev/null 2>&1 || { echo "long: needs $1" >&2; exit 1; }
}

fuzz() {
    need "cargo-fuzz: cargo install cargo-fuzz" cargo "+$toolchain" fuzz --version
    for target in $(cargo "+$toolchain" fuzz list --fuzz-dir tests/fuzz); do
        cargo "+$toolchain" fuzz run --fuzz-dir tests/fuzz "$target" -- \
            -max_total_time=$((minutes * 60)) -timeout=10 -rss_limit_mb=2048
    done
}

miri() {
    need "Miri: rustup +$toolchain component add miri" cargo "+$toolchain" miri --version
    # What touches the kernel cannot run under Miri; the scanner and the rings' memory can.
    MIRIFLAGS="-Zmiri-disable-isolation" cargo "+$toolchain" miri test -p stanza --lib
    MIRIFLAGS="-Zmiri-disable-isolation" cargo "+$toolchain" miri test -p ring --lib spsc
}

loom() {
    RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=3 cargo test -p ring --release --lib loom
}

sim() {
    local until=$((SECONDS + minutes * 60)) seed
    while [ "$SECONDS" -lt "$until" ]; do
        seed=$(od -An -N8 -tu8 /dev/urandom | tr -d ' ')
        SIM_SEED=$seed cargo test --profile fast -p sim --quiet || {
            echo "long: simulation failed, SIM_SEED=$seed" >&2
            exit 1
        }
    done
}

case $what in
    fuzz | miri | loom | sim) "$what" ;;
    all) miri; loom; sim; fuzz ;;
    *) echo "usage: scripts/long.sh [fuzz|miri|loom|sim|all] [MINUTES]" >&2; exit 2 ;;
esac
