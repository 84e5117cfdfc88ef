# For bench.sh, by `.`: Vorpal, Debian's Prosody and ejabberd, and the floor under the same loads, in turns. Each is
# started anew for each run, alone on core 0, with the generator on core 1: Prosody is slower once many have been there
# and gone.

rounds=3
seconds=4
# A load that has not ended by then has failed; all of them take less than 20 s where nothing is wrong.
load_seconds_max=60
# A peer's script has a shorter limit of its own, and says what is wrong.
peer_seconds_max=90
contenders=(vorpal prosody ejabberd floor)
loads=(memory-plain memory-tls chat-2000 chat-100 presence-20 chat-2000-tls chat-100-tls)
# The process that is measured, and what it runs with.
contender=""
contender_config=""

# load_arguments LOAD: the generator's, into `arguments`.
load_arguments() {
    local measured=(--closed --warmup 1 --duration "$seconds")
    case "$1" in
        chat-2000*) arguments=(--clients 2000 --window 1 "${measured[@]}") ;;
        chat-100*) arguments=(--clients 100 --window 4 "${measured[@]}") ;;
        presence-20) arguments=(--scenario presence --clients 100 --window 1 "${measured[@]}") ;;
        memory-*) arguments=(--scenario idle --clients 10000 --user m%d --warmup 0.5 --duration 1) ;;
    esac
}

did_not_start() {
    { echo "did not start: $(tail -1 "$work/log")"; tail -5 "$work/log"; } >"$work/said"
}

# start_contender NAME LOAD: a peer with the load's accounts; Vorpal has those of all loads. Fails where it does not
# start, with why in $work/said.
start_contender() {
    local accounts=u%d:2000:20 tries
    contender=""
    case "$1" in
        floor) return 0 ;;
        vorpal)
            # Its output is in $work/log, as a peer's.
            start_server 0 2>/dev/null || { did_not_start; return 1; }
            contender=$server contender_config=$work/vorpal.toml
            return 0 ;;
    esac
    case "$2" in memory-*) accounts=m%d:10000:1 ;; esac
    rm -f "$work/peer"
    TMPDIR=$work "scripts/peers/$1.sh" --port "$port" --core 0 --accounts "$accounts" \
        --ready-file "$work/peer" >"$work/log" 2>&1 &
    server=$!
    for ((tries = 0; tries < peer_seconds_max * 10; tries++)); do
        if [ -e "$work/peer" ]; then
            read -r contender contender_config <"$work/peer"
            return 0
        fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    did_not_start
    return 1
}

# take NAME ROUND LOAD: one run, to $raw/LOAD.NAME.ROUND.json, or to .failed why there is none.
take() {
    local file=$raw/$3.$1.$2 arguments=() target=() code began
    echo "bench: round $2, $1, $3"
    if start_contender "$1" "$3"; then
        load_arguments "$3"
        case "$1.$3" in
            floor.*) target=(floor) ;;
            *-tls) target=(--tls direct --insecure --port "$((port + 1))") ;;
            *) target=(--tls none --port "$port") ;;
        esac
        if [ "$1" != floor ]; then
            target+=(--domain bench.localhost --password bench --server-pid "$contender"
                --server-config "$contender_config")
        fi
        began=$SECONDS
        timeout --foreground -k 5 "$load_seconds_max" "$loadgen" "${target[@]}" "${arguments[@]}" --quiet --name "$3 $1" \
            --json "$file.json" >/dev/null 2>"$work/said"
        code=$?
        case "$code" in
            124) echo "was not done after $load_seconds_max s" >"$work/said" ;;
            # By `timeout`, where SIGTERM did not end it, or by the kernel.
            137) echo "was killed after $((SECONDS - began)) s, and may take $load_seconds_max" >"$work/said" ;;
        esac
    fi
    stop_server
    if [ ! -e "$file.json" ]; then
        cp "$work/said" "$file.failed"
        sed "s/^/bench: $3, $1: /" "$file.failed" >&2
    fi
}

peers() {
    local round name load
    raw=$work/peers
    mkdir "$raw"
    configure 1
    make_accounts 'u%d' 2000 20
    make_accounts 'm%d' 10000 1
    {
        "$vorpal" --version
        dpkg-query -W -f '${Package} ${Version}\n' prosody ejabberd
    } >"$raw/versions" 2>/dev/null
    for ((round = 1; round <= rounds; round++)); do
        for load in "${loads[@]}"; do
            # Memory hardly varies: once.
            case "$round.$load" in [!1].memory-*) continue ;; esac
            for name in "${contenders[@]}"; do
                # It has no XMPP, so neither logins nor sessions, and no TLS.
                case "$name.$load" in floor.*-tls | floor.memory-*) continue ;; esac
                take "$name" "$round" "$load"
            done
        done
    done
    # The folder of this run is gone afterwards and says nothing to anybody.
    sed -i "s|$work|DATA|g; s|$bin/||g" "$raw"/*.json "$raw"/*.failed 2>/dev/null
    python3 scripts/peers/table.py "$raw" "$out"
}
