# For other scripts, by `.`: stop_child WHO PID SECONDS ends a process that the script started, by SIGTERM, and by SIGKILL
# where it is still there after so long.
stop_child() {
    local tries
    kill -TERM "$2" 2>/dev/null
    for ((tries = 0; tries < $3 * 10; tries++)); do
        kill -0 "$2" 2>/dev/null || break
        sleep 0.1
    done
    if kill -KILL "$2" 2>/dev/null; then
        echo "$1: process $2 did not stop within $3 s, and was killed" >&2
    fi
    wait "$2" 2>/dev/null
}
