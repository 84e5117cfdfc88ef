# For other scripts, by `.`: need [--say] WHO COMMAND:PACKAGE.. installs the Debian packages of commands that are not there,
# as root; anybody else is told in one sentence what to install, and with --say root, too. A name that begins with / is a
# file instead of a command; none is never there.
need() {
    local says="" who pair what missing=()
    [ "$1" != --say ] || { says=yes; shift; }
    who=$1
    shift
    for pair in "$@"; do
        what=${pair%%:*}
        case "$what" in
            /*) [ -e "$what" ] ;;
            *) command -v "$what" >/dev/null ;;
        esac || [[ " ${missing[*]} " == *" ${pair##*:} "* ]] || missing+=("${pair##*:}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ -n "$says" ] || [ "$(id -u)" -ne 0 ]; then
        echo "$who: needs packages; run: apt-get install ${missing[*]}" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"
}

# need_cargo WHO
need_cargo() {
    command -v cargo >/dev/null || { echo "$1: needs cargo, from https://rustup.rs" >&2; return 1; }
}
