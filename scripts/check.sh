#!/usr/bin/env bash
# What every commit passes: formatting, clippy without a warning, and the executable style.
set -euo pipefail
cd "$(dirname "$0")/.."

if cargo fmt --version >/dev/null 2>&1; then
    cargo fmt --all --check
else
    echo "check: rustfmt is not installed (rustup component add rustfmt); formatting is not checked"
fi
cargo clippy --locked --workspace --all-targets -- -D warnings
cargo test --locked --quiet --test tidy
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --log-level error check
fi
echo "check: all well"
