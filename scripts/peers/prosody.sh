#!/usr/bin/env bash
# Debian's Prosody as a peer to measure: scripts/peers/prosody.sh DIRECTORY PORT
#
# Runs in the foreground with all that it writes in the directory, for bench.localhost on the loopback, clear
# and with in-band registration. Tuned as its operators would for speed: the generational collector (its default
# is about half as fast at chat), epoll, no archive, no limits, no modules that the load does not use.
set -euo pipefail
directory=${1:?a directory of its own}
port=${2:?a port}

command -v prosody >/dev/null || {
    [ "$(id -u)" -eq 0 ] || { echo "prosody: needs apt-get install prosody" >&2; exit 1; }
    # RUNLEVEL keeps the package from starting the system's own.
    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends prosody >&2
}
mkdir -p "$directory/data"
cat >"$directory/prosody.cfg.lua" <<END
run_as_root = true
network_backend = "epoll"
gc = { mode = "generational" }
data_path = "$directory/data"
log = { { levels = { min = "warn" }, to = "console" } }
interfaces = { "127.0.0.1" }
c2s_ports = { $port }
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
modules_enabled = { "roster", "saslauth", "disco", "register_ibr" }
modules_disabled = { "s2s", "tls", "limits" }
allow_registration = true
authentication = "internal_hashed"
storage = "internal"
VirtualHost "bench.localhost"
END
exec prosody -F --config "$directory/prosody.cfg.lua"
