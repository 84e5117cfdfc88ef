#!/usr/bin/env bash
# Clients that others wrote against a running server: tests/clients/run.sh [--server NAME] [PYTEST..]
#
# NAME is vorpal (the debug build unless VORPAL names another binary) or prosody, by which a
# failing script is told from a failing server. Everything made lies under the target directory.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}

export SERVER_UNDER_TEST=vorpal
if [ "${1:-}" = --server ]; then
    SERVER_UNDER_TEST=$2
    shift 2
fi
export VORPAL=${VORPAL:-$target/debug/vorpal}

venv=$target/clients/venv
if ! cmp -s requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    mkdir -p "$target/clients"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
    cp requirements.txt "$venv/requirements.txt"
fi
(cd tokio && CARGO_TARGET_DIR=$target/clients/tokio cargo build --locked --quiet)
export TOKIO_CLIENT=$target/clients/tokio/debug/tokio-client

export NODE_PATH=$target/clients/node/node_modules
if ! cmp -s node/package-lock.json "$target/clients/node/installed.json"; then
    mkdir -p "$target/clients/node"
    cp node/package.json node/package-lock.json "$target/clients/node"
    npm ci --prefix "$target/clients/node" --ignore-scripts --no-audit --no-fund --silent
    cp node/package-lock.json "$target/clients/node/installed.json"
fi

PYTHONDONTWRITEBYTECODE=1 exec "$venv/bin/python" -m pytest "$@"
