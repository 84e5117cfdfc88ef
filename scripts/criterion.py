#!/usr/bin/env python3
"""Gathers what criterion measured into one file, stamped as the load generator stamps its results.

usage: scripts/criterion.py CRITERION_HOME FILE

A bench is there with its median and the interval that holds it with 95 % confidence, in nanoseconds
for one iteration, and with what an iteration handles. Ends non-zero where nothing was measured, or
where a group that reads XML lacks the general readers that it is to be compared with.
"""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

# Which benches the others of the group are measured against.
BASELINES = {
    "scan": {"quick-xml", "xml-rs"},
    "view": {"quick-xml with namespaces", "xml-rs"},
}


def said(*command):
    """The output of a command, or nothing where there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit():
    describe = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return os.environ.get("LOADGEN_COMMIT") or said(*describe) or None


def machine():
    about = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", about, re.MULTILINE)
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "cpu": model[1] if model else "",
        "cores": len(os.sched_getaffinity(0)),
    }


def bench(directory):
    about = json.loads((directory / "benchmark.json").read_text())
    median = json.loads((directory / "estimates.json").read_text())["median"]
    interval = median["confidence_interval"]
    found = {
        "group": about["group_id"],
        "name": about["function_id"] or about["group_id"],
        "median_ns": median["point_estimate"],
        "low_ns": interval["lower_bound"],
        "high_ns": interval["upper_bound"],
        "confidence": interval["confidence_level"],
    }
    # {"Bytes": 241}, {"Elements": 20} or nothing.
    for unit, count in (about["throughput"] or {}).items():
        found["handles"] = {"unit": unit.lower(), "count": count}
        found["per_second"] = count * 1e9 / found["median_ns"]
    return found


def gather(home):
    places = sorted(path.parent for path in home.glob("**/new/estimates.json"))
    benches = sorted((bench(place) for place in places), key=lambda b: (b["group"], b["name"]))
    if not benches:
        sys.exit(f"criterion: nothing was measured below {home}")
    for group, wanted in BASELINES.items():
        names = {bench["name"] for bench in benches if bench["group"] == group}
        if names and not wanted <= names:
            sys.exit(f"criterion: {group} lacks {', '.join(sorted(wanted - names))}")
    return benches


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[2])
    home, out = map(pathlib.Path, sys.argv[1:])
    result = {
        "name": "criterion",
        "written": int(time.time()),
        "commit": commit(),
        "rustc": said("rustc", "--version"),
        "machine": machine(),
        "benches": gather(home),
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    for bench in result["benches"]:
        low, high = bench["low_ns"], bench["high_ns"]
        print(f"{bench['group']:<18} {bench['name']:<28} {bench['median_ns']:>12,.1f} ns"
              f"   {low:,.1f} to {high:,.1f}")


if __name__ == "__main__":
    main()
