#!/usr/bin/env python3
"""Makes one table and one plot of the runs that `scripts/bench.sh --peers` has left.

usage: scripts/peers/table.py RUNS DIRECTORY

RUNS holds LOAD.SERVER.ROUND.json (what `loadgen --json` wrote), or .failed where there is no result
and why, and `versions`, a line for each server. DIRECTORY gets peers.json (every run, medians and
ranges), peers.md and peers.svg; the table is printed as well. CPU is in seconds per million deliveries,
memory in bytes per connection, rates in deliveries a second.

Ends with 2 where Vorpal or the floor lost or altered anything, else with 1 where a server has no
result of a load at all. What a peer loses or refuses is told below the table.
"""

import json
import os
import pathlib
import statistics
import sys
import time

sys.dont_write_bytecode = True
import plot  # noqa: E402

LOADS = {
    "chat-2000": "chat, 2,000 users, one outstanding",
    "chat-100": "chat, 100 users, four outstanding",
    "presence-20": "presence to 20 contacts",
    "chat-2000-tls": "chat of 2,000 over TLS 1.3",
    "chat-100-tls": "chat of 100 over TLS 1.3",
    "memory-plain": "memory per connection, 10,000 idle",
    "memory-tls": "the same over TLS 1.3",
}
SERVERS = {"vorpal": "Vorpal", "prosody": "Prosody", "ejabberd": "ejabberd", "floor": "floor"}
# The floor has no XMPP, so neither logins nor sessions, and no TLS.
WITHOUT_FLOOR = {"chat-2000-tls", "chat-100-tls", "memory-plain", "memory-tls"}
# They are not bound to Vorpal's promises.
PEERS = {"prosody", "ejabberd"}
# A closed loop keeps the core of whoever limits it busy. Where the server's was not, and the generator's neither, one
# waited for the other, or others had the rest of them.
SHARE_MIN = 0.9
DAGGER = "\N{DAGGER}"
TIMES = ("p50_us", "p99_us", "max_us")
NOT_FAULTS = {"sent", "expected", "delivered", "own_copies", "retold"}


def refuse(reason):
    sys.exit(f"table: {reason}")


def run_of(path, number):
    """What decides and tells one run."""
    if path.suffix == ".failed":
        return {"round": number, "failed": path.read_text().strip() or "no reason was given"}
    try:
        result = json.loads(path.read_text())
        faults = result["verdict"].items()
        server = result["server"] or {}
        return {
            "round": number,
            "began": result["began"],
            "command": result["command"],
            "exit": result["exit"],
            "reasons": result["reasons"],
            "rate": result["rate"],
            "cpu_per_million": server.get("cpu_per_million"),
            "bytes_per_connection": server.get("bytes_per_connection"),
            "latency": {name: result["latency"][name] for name in TIMES},
            "delivered": result["verdict"]["delivered"],
            "faults": {name: n for name, n in faults if n and name not in NOT_FAULTS},
            "generator_busy": result["generator"]["busy"],
            "generator_is_limit": result["generator"]["is_limit"],
        }
    except (ValueError, KeyError, TypeError) as error:
        refuse(f"{path} is not what loadgen --json writes ({error!r}); remove it, and measure again")


def middle(runs, figure):
    """The median of the runs that have a result, with its range; nothing where there is none."""
    values = [run[figure] for run in runs if run.get(figure) is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def gather(home):
    """({load: {server: findings}}, one whole result for what all have in common)."""
    found, whole = {}, None
    for load in LOADS:
        found[load] = {}
        for server in SERVERS:
            runs = []
            for path in sorted(home.glob(f"{load}.{server}.*")):
                runs.append(run_of(path, int(path.name.split(".")[2])))
                if whole is None and path.suffix == ".json":
                    whole = json.loads(path.read_text())
            if not runs:
                continue
            figures = ("cpu_per_million", "rate")
            if load.startswith("memory"):
                figures = ("bytes_per_connection",)
            found[load][server] = {name: middle(runs, name) for name in figures} | {"runs": runs}
    if whole is None:
        refuse(f"nothing was measured below {home}")
    return found, whole


def configs(home):
    """What each server ran with, as its run recorded it."""
    texts = {}
    for path in sorted(home.glob("*.json")):
        text = json.loads(path.read_text()).get("server_config")
        if text:
            texts.setdefault(path.name.split(".")[1], text)
    return texts


def versions(home):
    """{server: version}; a package's stands without Debian's part of it."""
    path = home / "versions"
    lines = path.read_text().splitlines() if path.exists() else []
    words = [line.split() for line in lines]
    return {name: version.split("-")[0] for name, version, *_ in (w for w in words if len(w) > 1)}


def three(value):
    """Three figures, with commas."""
    if value >= 100:
        size = 10 ** max(len(str(int(value))) - 3, 0)
        return f"{round(value / size) * size:,}"
    return f"{value:.2f}" if value < 1 else f"{value:.3g}"


def mark(findings):
    """`*` where the generator was the limit of the rate that is shown, a dagger where neither it nor the server was."""
    runs = [run for run in findings["runs"] if run.get("rate") and run.get("cpu_per_million")]
    runs.sort(key=lambda run: run["rate"])
    # Of an even number the two whose mean the median is.
    shown = runs[(len(runs) - 1) // 2:len(runs) // 2 + 1]
    if any(run["generator_is_limit"] for run in shown):
        return "*"
    shares = [run["rate"] * run["cpu_per_million"] / 1e6 for run in shown]
    return DAGGER if shares and statistics.mean(shares) < SHARE_MIN else ""


def cell(findings, figure, scale=1):
    if not findings or not findings.get(figure):
        return "none" if findings else ""
    return three(findings[figure]["median"] / scale) + (mark(findings) if figure == "rate" else "")


def times(found, load, over):
    """How many times what Vorpal takes `over` takes: `12.3x`."""
    figures = [found[load].get(server, {}).get("cpu_per_million") for server in (over, "vorpal")]
    if not all(figures):
        return ""
    return three(figures[0]["median"] / figures[1]["median"]) + "x"


def table(found, known):
    heads = [f"{label} {known[name]}" if name in PEERS and name in known else label
             for name, label in SERVERS.items()]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(SERVERS) + 1) + "|"]

    def row(title, cells):
        lines.append(f"| {title} | {' | '.join(cells)} |")

    for load, title in LOADS.items():
        if not found[load]:
            row(f"{title}: not measured", [""] * len(SERVERS))
        elif load.startswith("memory"):
            row(f"{title}: kB",
                [cell(found[load].get(name), "bytes_per_connection", 1000) for name in SERVERS])
        else:
            row(f"{title}: CPU seconds per million",
                [cell(found[load].get(name), "cpu_per_million") for name in SERVERS])
            row("of Vorpal's", [times(found, load, name) for name in SERVERS])
            row("deliveries a second", [cell(found[load].get(name), "rate") for name in SERVERS])
    return "\n".join(lines)


def notes(found):
    """What readers of the table must know: whose limit a rate is, what was lost, what has no result."""
    lines = []
    marks = {mark(findings) for load in found.values() for findings in load.values()}
    if "*" in marks:
        lines.append("* The generator's core was the limit: the rate is the generator's, and the server's is "
                     "higher; the CPU per million holds.")
    if DAGGER in marks:
        lines.append(f"{DAGGER} Neither the server's core nor the generator's was used up: each waited for the other, or "
                     "others used the machine; the rate is below the server's, and the CPU per million is what to "
                     "compare.")
    for load, servers in found.items():
        for server, findings in servers.items():
            for run in findings["runs"]:
                where = f"{SERVERS[server]}, {load}, round {run['round']}"
                if "failed" in run:
                    lines.append(f"{where}: no result: {run['failed'].splitlines()[0]}")
                elif run["exit"]:
                    lines.append(f"{where}: {'; '.join(run['reasons'])}")
    return lines


def page(found, known):
    """The table and the notes, as Markdown: a note's star is no list's."""
    lines = [f"\\{line}" if line.startswith("*") else line for line in notes(found)]
    return "\n\n".join([table(found, known), *lines]) + "\n"


def status(found):
    code = 0
    for load in LOADS:
        for server in SERVERS:
            if server == "floor" and load in WITHOUT_FLOOR:
                continue
            runs = found[load].get(server, {"runs": []})["runs"]
            if server not in PEERS and any(run.get("exit") == 2 for run in runs):
                return 2
            if all("failed" in run or run.get("exit") == 3 for run in runs):
                code = 1
    return code


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[2])
    home, out = map(pathlib.Path, sys.argv[1:])
    found, whole = gather(home)
    known = versions(home)
    text = page(found, known)
    result = {
        "name": "peers",
        "written": int(time.time()),
        "commit": os.environ.get("LOADGEN_COMMIT") or whole["commit"],
        "command": "scripts/bench.sh --peers",
        "machine": whole["machine"],
        "ring": whole["ring"],
        "servers": {"versions": known, "configs": configs(home)},
        "loads": found,
        "notes": notes(found),
    }
    (out / "peers.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "peers.md").write_text(text)
    (out / "peers.svg").write_text(plot.draw(found, LOADS, SERVERS))
    print(f"\n{text}\ntable: {out}/peers.json has every run, {out}/peers.svg the plot")
    sys.exit(status(found))


if __name__ == "__main__":
    main()
