#!/usr/bin/env python3
"""Compares criterion's benches of two trees that were run in turns.

usage: scripts/compare_benches.py compare DIRECTORY [--noise SHARE] [--commit COMMIT]
       scripts/compare_benches.py program BENCH < cargo's messages
       scripts/compare_benches.py test

DIRECTORY has before/ROUND and after/ROUND as criterion leaves them; what is found goes to
comparison.json there. Of each bench the two medians of a round are a pair, and the interval between
the k-th smallest and the k-th largest of the pairs' changes holds their median with a probability
that only their number decides, whatever the machine does to each (the sign test). The chance that
any bench of a run is called slower, or faster, without being so is 5 % in all: with twenty benches
each has an interval of 99.75 %, which takes ten rounds.

A bench is slower, and the status 1, where its whole interval lies above the noise (0 %). A bench
that only one side has is named. Where none is on both sides, or the rounds are too few for an
interval, nothing was compared, and the status is 1 as well.
`program` gives the path of a bench's program from what `cargo bench --message-format json` says.
"""

import argparse
import json
import math
import pathlib
import statistics
import sys

ERROR = 0.05


def program(bench):
    """The path of the program that cargo built for a bench."""
    paths = []
    for line in sys.stdin:
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        target = message.get("target") or {}
        if message.get("executable") and target.get("name") == bench and "bench" in target["kind"]:
            paths.append(message["executable"])
    if len(paths) != 1:
        sys.exit(f"compare_benches: cargo built {len(paths)} programs for the bench {bench}")
    return paths[0]


def medians(side):
    """{bench: {round: median in ns}} of what criterion left."""
    found = {}
    for path in side.glob("*/**/new/estimates.json"):
        about = json.loads((path.parent / "benchmark.json").read_text())
        median = json.loads(path.read_text())["median"]["point_estimate"]
        number = int(path.relative_to(side).parts[0])
        found.setdefault(about["full_id"], {})[number] = median
    return found


def interval(changes, error):
    """The narrowest (low, high) of ordered changes that misses their median with this probability
    at most; None where there are too few of them."""
    count, ordered = len(changes), sorted(changes)
    missed, found = 0.0, None
    for rank in range(count // 2):
        missed += 2 * math.comb(count, rank) / 2**count
        if missed > error:
            break
        found = ordered[rank], ordered[-1 - rank]
    return found


def compare(before, after, noise):
    """[{bench, before_ns, after_ns, change, low, high, verdict}] of what both sides have."""
    both = sorted(before.keys() & after.keys())
    rows = []
    for bench in both:
        old, new = before[bench], after[bench]
        changes = [new[turn] / old[turn] - 1 for turn in sorted(old.keys() & new.keys())]
        between = interval(changes, ERROR / len(both))
        if between is None:
            continue
        low, high = between
        verdict = "SLOWER" if low > noise else "faster" if high < -noise else "same"
        rows.append({
            "bench": bench,
            "before_ns": statistics.median(old.values()),
            "after_ns": statistics.median(new.values()),
            "change": statistics.median(changes),
            "low": low,
            "high": high,
            "verdict": verdict,
        })
    return rows


def report(directory, noise, commit):
    before, after = (medians(directory / side) for side in ("before", "after"))
    rows = compare(before, after, noise)
    for name in sorted(before.keys() ^ after.keys()):
        print(f"{name:<44} only {'before' if name in before else 'after'}")
    print(f"{'bench':<44} {'before':>12} {'after':>12} {'change':>8}   interval")
    for row in rows:
        print(f"{row['bench']:<44} {row['before_ns']:>9,.1f} ns {row['after_ns']:>9,.1f} ns "
              f"{row['change']:>8.1%}   {row['low']:.1%} to {row['high']:.1%}  {row['verdict']}")
    summary = {"against": commit, "noise": noise, "benches": rows}
    (directory / "comparison.json").write_text(json.dumps(summary, indent=1) + "\n")
    if not rows:
        sys.exit("compare_benches: nothing was compared: give more --rounds, and benches that both "
                 "trees have")
    slower = sum(row["verdict"] == "SLOWER" for row in rows)
    print(f"compare_benches: {slower} of {len(rows)} are slower")
    return 1 if slower else 0


def share(text):
    if not text.endswith("%"):
        raise ValueError
    return float(text[:-1]) / 100


def test():
    """What the gate must say of rounds that are known."""
    # Ten pairs, all above: 2 / 1024 is below 5 %; of five it is not.
    assert interval(list(range(10)), 0.05) == (1, 8)
    assert interval(list(range(10)), 0.002) == (0, 9)
    assert interval(list(range(10)), 0.001) is None
    assert interval([1] * 5, 0.05) is None
    turns = range(1, 13)
    old = {"a": {turn: 100 + turn for turn in turns}}
    of = lambda factor: {"a": {turn: value * factor for turn, value in old["a"].items()}}
    verdict = lambda new, noise=0.0: [row["verdict"] for row in compare(old, new, noise)]
    assert verdict(of(1.01)) == ["SLOWER"]
    assert verdict(of(1.01), 0.02) == ["same"]
    assert verdict(of(0.9)) == ["faster"]
    shaky = {"a": {turn: value * (1.2 if turn % 3 else 0.9) for turn, value in old["a"].items()}}
    assert verdict(shaky) == ["same"]
    assert verdict({"b": old["a"]}) == []
    few = {"a": {turn: 200 for turn in (1, 2, 3)}}
    assert verdict(few) == []
    print("compare_benches: all well")


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("what", choices=("compare", "program", "test"))
    parser.add_argument("subject", nargs="?")
    parser.add_argument("--noise", type=share, default=0.0)
    parser.add_argument("--commit")
    args = parser.parse_args()
    if args.what == "test":
        return test()
    if args.subject is None:
        parser.error(f"{args.what} takes a subject")
    if args.what == "program":
        return print(program(args.subject))
    return sys.exit(report(pathlib.Path(args.subject), args.noise, args.commit))


if __name__ == "__main__":
    main()
