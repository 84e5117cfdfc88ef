#!/usr/bin/env bash
# The gates against slowness for continuous integration: none of them needs a quiet machine.
#
#   scripts/bench-ci.sh                    instructions and allocations of the hot path, against their limits
#   scripts/bench-ci.sh --against COMMIT   and criterion's benches of both trees in turns: is this one slower?
#
#   --bench NAMES    these benches instead of scan, view, route, fanout, mesh and tls (comma between them)
#   --rounds N       turns that each tree has in each bench (12)
#   --noise SHARE    how much slower a bench may be without being called so (0%)
#   --keep DIRECTORY leave what criterion measured, and comparison.json, there
#
# Needs Debian 12, a Rust toolchain, valgrind and python3. Ends with 1 where a limit is exceeded or a bench is
# slower, and where nothing was compared. docs/BENCHMARKING.md says how to read it.
set -uo pipefail
cd "$(dirname "$0")/.."

against=""
names=scan,view,route,fanout,mesh,tls
rounds=12
noise=0%
keep=""
while [ $# -gt 0 ]; do
    case "$1" in
        --against) against=${2:?--against takes a commit}; shift 2 ;;
        --bench) names=${2:?--bench takes names of benches}; shift 2 ;;
        --rounds) rounds=${2:?--rounds takes a number}; shift 2 ;;
        --noise) noise=${2:?--noise takes a share, as in 2%}; shift 2 ;;
        --keep) keep=${2:?--keep takes a directory}; shift 2 ;;
        -h | --help) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 0 ;;
        *) echo "bench-ci: unknown argument $1 (try --help)" >&2; exit 1 ;;
    esac
done

. scripts/need.sh
need bench-ci cc:gcc make:make valgrind:valgrind python3:python3 git:git || exit 1
need_cargo bench-ci || exit 1

worst=0
if [ -z "$against" ]; then
    cargo bench --locked -p sim --bench instructions || worst=1
    cargo test --locked --release --test allocations || worst=1
    exit "$worst"
fi

commit=$(git rev-parse --verify --quiet "$against^{commit}") ||
    { echo "bench-ci: --against $against is no commit of this repository" >&2; exit 1; }
work=$(mktemp -d)
[ -n "$keep" ] || keep=$work/kept
mkdir -p "$keep" || exit 1
trap 'git worktree remove --force "$work/before" 2>/dev/null; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
git worktree add --quiet --detach "$work/before" "$commit" || exit 1

# build DIRECTORY TARGET LIST: the programs of the benches, a line each, in the order of the names.
build() {
    local bench
    : >"$3"
    for bench in ${names//,/ }; do
        (cd "$1" && CARGO_TARGET_DIR=$2 cargo bench --locked --no-run --message-format json --bench "$bench") |
            python3 scripts/compare_benches.py program "$bench" >>"$3" || return 1
    done
}
target=${CARGO_TARGET_DIR:-$PWD/target}
build . "$target" "$work/after.list" || exit 1
build "$work/before" "$target/before" "$work/before.list" || exit 1

# Who is first in one turn is second in the next: a drift of the machine hits both alike.
for round in $(seq "$rounds"); do
    sides=(before after)
    [ $((round % 2)) -eq 0 ] || sides=(after before)
    for line in $(seq "$(wc -l <"$work/after.list")"); do
        for side in "${sides[@]}"; do
            program=$(sed -n "${line}p" "$work/$side.list")
            CRITERION_HOME=$keep/$side/$round "$program" --bench --noplot \
                --warm-up-time 0.2 --measurement-time 0.6 >"$work/log" 2>&1 ||
                { tail -5 "$work/log" >&2; echo "bench-ci: $program failed" >&2; exit 1; }
        done
    done
    echo "bench-ci: turn $round of $rounds"
done
python3 scripts/compare_benches.py compare "$keep" --noise "$noise" --commit "$commit"
