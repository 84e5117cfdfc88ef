#!/usr/bin/env bash
# The client tests against Debian's Prosody: what fails here is the script's fault, not the server's.
set -euo pipefail
command -v prosody >/dev/null || { echo "client-tests: needs apt-get install prosody" >&2; exit 1; }
exec "$(dirname "$0")/../../tests/clients/run.sh" --server prosody "$@"
