#!/usr/bin/env bash
# Debian's Prosody, tuned for a comparison, on one core in a directory of its own until it is told to stop (SIGTERM,
# Ctrl-C); then nothing of it is left. The domain is bench.localhost, every password `bench`.
#
#   scripts/peers/prosody.sh [--port 25222] [--core 0] [--accounts u%d:100:20].. [--ready-file FILE]
#
# --port: in clear; the next one with TLS. --accounts NAME:COUNT:CLIQUE: so many accounts with names from 0, each a
# contact of the others of its clique. --ready-file: written once it serves, with its process and its configuration.
#
# Tuned: the generational collector, with which chat takes it less time; epoll; no limits, no archive, no
# offline messages, nothing logged but warnings, and no module that clients of the comparison do not ask for. Rooms are at
# conference.bench.localhost: anybody's, without history, and gone with who was in them.
set -uo pipefail
. "$(dirname "$0")/serve.sh"

configure() {
    cat >"$place/prosody.cfg.lua" <<END
data_path = "$place/data"
pidfile = "$place/pid"
run_as_root = true
log = { warn = "$place/log" }
network_backend = "epoll"
network_settings = { tcp_backlog = 4096 }
gc = { mode = "generational" }
interfaces = { "127.0.0.1" }
c2s_ports = { $port }
c2s_direct_tls_ports = { $((port + 1)) }
s2s_ports = {}
http_ports = {}
https_ports = {}
modules_enabled = { "roster", "saslauth", "tls", "disco", "ping" }
modules_disabled = { "s2s", "offline", "limits" }
c2s_require_encryption = false
authentication = "internal_hashed"
storage = "internal"
ssl = { certificate = "$place/cert.pem", key = "$place/key.pem" }
VirtualHost "$domain"
Component "conference.$domain" "muc"
    restrict_room_creation = false
    max_history_messages = 0
END
}

# One account by prosodyctl; the others are copies of it, since all have the same password.
make_accounts() {
    local first=$1 name count clique home number
    home=$place/data/$(sed 's/\./%2e/g' <<<"$domain")
    for account in "${accounts[@]}"; do
        IFS=: read -r name count clique <<<"$account"
        for ((number = 0; number < count; number++)); do
            [ "${name/\%d/$number}" = "$first" ] || echo "$home/accounts/${name/\%d/$number}.dat"
        done | xargs -r -n 500 sh -c 'tee "$@" <"$0" >/dev/null' "$home/accounts/$first.dat" || return 1
        [ "$clique" -gt 1 ] || continue
        mkdir -p "$home/roster"
        awk -v name="$name" -v count="$count" -v clique="$clique" -v domain="$domain" -v home="$home/roster" '
            function user(number, copy) { copy = name; sub(/%d/, number, copy); return copy }
            BEGIN {
                for (number = 0; number < count; number++) {
                    file = home "/" user(number) ".dat"
                    begin = number - number % clique
                    printf "return { [false] = { version = 1 };\n" >file
                    for (other = begin; other < begin + clique && other < count; other++)
                        if (other != number)
                            printf "[\"%s@%s\"] = { subscription = \"both\"; groups = {} };\n", user(other), domain >file
                    print "}" >file
                    close(file)
                }
            }' || return 1
    done
}

read_arguments "$@"
need_peer prosody:prosody prosodyctl:prosody awk:mawk
prepare
configure
mkdir "$place/data"
first=${accounts[0]%%:*}
first=${first/\%d/0}
prosodyctl --config "$place/prosody.cfg.lua" register "$first" "$domain" "$password" >>"$place/log" 2>&1 &&
    make_accounts "$first" || refuse "cannot make accounts: $(tail -1 "$place/log")"
serve "$place/prosody.cfg.lua" answers prosody --config "$place/prosody.cfg.lua" -F
