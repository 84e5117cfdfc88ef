#!/usr/bin/env bash
# The runs that take hours, Miri's on a nightly toolchain: scripts/long.sh [fuzz|miri|loom|sim|all] [MINUTES]
#
# MINUTES (10 unless told) is what each fuzz target and the simulation get; the other two end by
# themselves. A failed simulation prints its seed.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-all}
minutes=${2:-10}
toolchain=${NIGHTLY:-nightly}
target=${CARGO_TARGET_DIR:-$PWD/target}

need() {
    "${@:2}" >/dev/null 2>&1 || { echo "long: needs $1" >&2; exit 1; }
}

fuzz() {
    scripts/fuzz.sh $((minutes * 60 * 5))
}

miri() {
    need "Miri: rustup +$toolchain component add miri" cargo "+$toolchain" miri --version
    # What touches the kernel cannot run under Miri; the scanner and the rings' memory can.
    MIRIFLAGS="-Zmiri-disable-isolation" cargo "+$toolchain" miri test -p stanza --lib
    MIRIFLAGS="-Zmiri-disable-isolation" cargo "+$toolchain" miri test -p ring@0.1.0 --lib spsc
}

loom() {
    # The source of the lane with loom's atomics in place of the standard ones.
    (cd tests/loom && CARGO_TARGET_DIR="$target/loom" cargo run --locked --release)
}

sim() {
    # A failure prints its seed; SIM_SEED plays that one again.
    local until=$((SECONDS + minutes * 60)) seed
    cargo test --locked --profile fast -p sim --no-run
    while [ "$SECONDS" -lt "$until" ]; do
        seed=$(od -An -N6 -tu8 /dev/urandom | tr -d ' ')
        SIM_SEED=$seed cargo test --locked --profile fast -p sim --quiet >"$target/sim.log" 2>&1 || {
            cat "$target/sim.log"
            echo "long: simulation failed, SIM_SEED=$seed" >&2
            exit 1
        }
    done
    echo "sim: every seed held"
}

case $what in
    fuzz | miri | loom | sim) "$what" ;;
    all) miri; loom; sim; fuzz ;;
    *) echo "usage: scripts/long.sh [fuzz|miri|loom|sim|all] [MINUTES]" >&2; exit 2 ;;
esac
