#!/usr/bin/env bash
# The runs that take hours, Miri's on a nightly toolchain: scripts/long.sh [fuzz|miri|loom|sim|all] [MINUTES]
#
# MINUTES (10 unless told) is what each fuzz target gets, and the simulation after ten thousand seeds
# of its properties; the other two end by themselves. A failed simulation prints its seed.
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
    need "Miri; run: rustup toolchain install $toolchain --component miri,rust-src" \
        cargo "+$toolchain" miri --version
    export MIRIFLAGS=-Zmiri-disable-isolation
    # What touches the kernel or C cannot run under Miri: of the rings, what is plain memory can.
    cargo "+$toolchain" miri test --locked -p stanza --lib
    cargo "+$toolchain" miri test --locked -p ring@0.1.0 --lib -- spsc pool slots
    # The protocol has no unsafe of its own: a part of it stands for what it is built on.
    cargo "+$toolchain" miri test --locked -p xmpp --lib -- stanza subscription xep
    # The same scanner with vectors, which Miri takes for absent unless it is told otherwise.
    RUSTFLAGS=-Ctarget-feature=+avx2 \
        cargo "+$toolchain" miri test --locked -p stanza --lib -- simd frame
}

loom() {
    # The source of the lane with loom's atomics in place of the standard ones.
    (cd tests/loom && CARGO_TARGET_DIR="$target/loom" cargo run --locked --release)
}

sim() {
    # A failure prints its seed; SIM_SEED plays that one again.
    local until=$((SECONDS + minutes * 60)) seed
    cargo test --locked --profile fast -p sim --no-run
    SIM_SEEDS=10000 cargo test --locked --profile fast -p sim \
        --test sim_promise --test sim_properties --test sim_faults --test sim_rosters
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
