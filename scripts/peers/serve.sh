# For prosody.sh and ejabberd.sh, by `.`: their arguments, a directory of their own with a certificate, and the life of
# the server, which ends with the script. Nothing outside of that directory is written.

. "$(dirname "${BASH_SOURCE[0]}")/../need.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../stop.sh"

domain=bench.localhost
password=bench
start_seconds_max=60
stop_seconds_max=20

who=$(basename "$0" .sh)
port=25222
core=0
ready=""
accounts=()
place=""
server=""

refuse() {
    echo "$who: $1" >&2
    exit 1
}

# What the packages would start by themselves after an installation is the operator's decision: only named here.
need_peer() {
    need --say "$who" "$@" taskset:util-linux openssl:openssl || exit 1
}

is_number() {
    [[ $1 =~ ^(0|[1-9][0-9]{0,6})$ ]]
}

# read_arguments ARGUMENTS..
read_arguments() {
    local account count clique
    while [ $# -gt 0 ]; do
        case "$1" in
            -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
            --port | --core | --accounts | --ready-file)
                [ $# -ge 2 ] || refuse "$1 takes a value (try --help)" ;;
            *) refuse "unknown argument $1 (try --help)" ;;
        esac
        case "$1" in
            --port) port=$2 ;;
            --core) core=$2 ;;
            --accounts) accounts+=("$2") ;;
            --ready-file) ready=$2 ;;
        esac
        shift 2
    done
    is_number "$port" && [ "$port" -ge 1 ] && [ "$port" -le 65534 ] || refuse "--port takes 1 to 65534, not $port"
    taskset -c "$core" true 2>/dev/null || refuse "--core takes the number of a core that is there, not $core"
    [ "${#accounts[@]}" -gt 0 ] || accounts=(u%d:100:20)
    for account in "${accounts[@]}"; do
        IFS=: read -r account count clique <<<"$account"
        [[ $account =~ ^[a-z0-9]*%d[a-z0-9]*$ ]] && is_number "$count" && is_number "$clique" &&
            [ "$((10#$count))" -ge 1 ] && [ "$((10#$clique))" -ge 1 ] ||
            refuse "--accounts takes NAME:COUNT:CLIQUE as in u%d:100:20, not $account:$count:$clique"
    done
}

# Two servers at one port would be measured as one.
is_free() {
    ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

answers() {
    ! is_free "$port" && ! is_free "$((port + 1))"
}

stop() {
    trap '' INT TERM
    [ -z "$server" ] || stop_child "$who" "$server" "$stop_seconds_max"
    [ -z "$ready" ] || rm -f "$ready" "$ready.part"
    [ -z "$place" ] || rm -rf "$place"
}

# A directory of its own, gone with the script; in it a certificate.
prepare() {
    local taken
    for taken in "$port" "$((port + 1))"; do
        is_free "$taken" || refuse "port $taken is taken; choose two others with --port"
    done
    ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
    trap stop EXIT
    trap 'exit 0' INT TERM
    place=$(mktemp -d) || refuse "cannot make a directory in ${TMPDIR:-/tmp}"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$domain" \
        -addext "subjectAltName=DNS:$domain" -keyout "$place/key.pem" -out "$place/cert.pem" 2>"$place/log" ||
        refuse "openssl makes no certificate: $(tail -1 "$place/log")"
}

# serve CONFIG IS_UP COMMAND..: runs it on the core until the script is told to stop. Who waits for the ready file finds
# the server's process and its configuration in it.
serve() {
    local config=$1 is_up=$2 tries
    shift 2
    (cd "$place" && exec taskset -c "$core" "$@") >>"$place/log" 2>&1 </dev/null &
    server=$!
    for ((tries = 0; tries < start_seconds_max * 10; tries++)); do
        "$is_up" && break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    if ! "$is_up" || ! kill -0 "$server" 2>/dev/null; then
        tail -5 "$place/log" >&2
        refuse "did not start within $start_seconds_max s; above is the end of what it said"
    fi
    echo "$who: process $server on core $core, 127.0.0.1:$port, with TLS :$((port + 1)), domain $domain," \
        "accounts ${accounts[*]}, password $password"
    if [ -n "$ready" ]; then
        echo "$server $config" >"$ready.part" && mv "$ready.part" "$ready" || refuse "cannot write $ready"
    fi
    wait "$server"
    server=""
    tail -5 "$place/log" >&2
    refuse "the server ended by itself; above is the end of what it said"
}
