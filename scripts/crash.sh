#!/usr/bin/env bash
# Kills the server 200 times under load and checks that nothing acknowledged is lost.
#
# usage: scripts/crash.sh [--kills N] [--seed N] [--resources N] [--stored N] [--power-loss]
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --release --bin vorpal
exec python3 scripts/crash.py --vorpal target/release/vorpal "$@"
