"""What `scripts/bench.sh --goals` left, as tables and a plot: goals.py DIRECTORY

Reads half-rate-*.json, size-*.json and session-*.json in the directory, prints the tables and leaves
sizes.svg: one plot without outside assets, readable in the dark, of CPU seconds per million
deliveries and of memory per connection against the number of clients.
"""

import json
import math
import pathlib
import sys

WIDTH, HEIGHT, LEFT, TOP, FOOT, GAP = 860, 330, 60, 64, 44, 80
STYLE = """<style>text { font: 13px system-ui, sans-serif; fill: #1b1f27; } .soft { fill: #69707d; }
.back { fill: #fff; } .grid { stroke: #e3e6ea; } .line { stroke: #2b6cee; fill: none; stroke-width: 2; }
.dot { fill: #2b6cee; } .head { font-weight: 600; font-size: 15px; }
@media (prefers-color-scheme: dark) { text { fill: #e8ebf0; } .soft { fill: #98a1af; } .back { fill: #1a1f28; }
.grid { stroke: #2b323e; } .line { stroke: #6d9dff; } .dot { fill: #6d9dff; } }</style>"""


def results(directory, kind):
    """The runs of this kind by the rest of their names; those that failed are not shown."""
    found = {}
    for path in directory.glob(f"{kind}-*.json"):
        result = json.loads(path.read_text())
        if result["exit"] == 0:
            found[path.stem[len(kind) + 1:]] = result
        else:
            print(f"goals: {path.name} ended with {result['exit']} and is not shown", file=sys.stderr)
    return found


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def show_latency(found):
    row("half of the maximum rate, 50,000/s", "p50 us", "of the floor's", "p99 us", "of the floor's",
        "CPU s per million", "of the floor's")
    row(*["---"] * 7)
    for name, result in sorted(found.items()):
        clients, _, spin = name.rpartition("spin-")
        own, floor = result["latency"], result["floor"]["latency"]
        cells = [f"{clients.rstrip('-') or '2000'} users, idle_spin_us = {spin}"]
        for figure in ("p50_us", "p99_us"):
            cells += [f"{own[figure]:.0f}", f"{own[figure] / floor[figure]:.2f}x"]
        row(*cells, f"{result['server']['cpu_per_million']:.2f}", f"{result['floor']['ratio']:.2f}x")
    print()


def show_sessions(found):
    row("what 16,000 idle clients hold", "bytes per connection")
    row("---", "---")
    for name, result in sorted(found.items(), key=lambda it: it[1]["server"]["bytes_per_connection"]):
        row(name, f"{result['server']['bytes_per_connection']:,.0f}")
    print()


def show_sizes(points):
    row("clients", "shards", "CPU s per million", "bytes per connection", "p50 us", "p99 us")
    row(*["---"] * 6)
    for clients, result in points:
        server, latency = result["server"], result["latency"]
        row(f"{clients:,}", shards(result), f"{server['cpu_per_million']:.2f}",
            f"{server['bytes_per_connection']:,.0f}", f"{latency['p50_us']:.0f}", f"{latency['p99_us']:.0f}")
    print()


def shards(result):
    words = [line.split(" = ") for line in result["server_config"].splitlines()]
    return dict(pair for pair in words if len(pair) == 2).get("shards", "as many as fit")


def panel(left, width, title, points, unit):
    """A line over the number of clients, which is logarithmic."""
    top = max(value for _, value in points) * 1.15
    low, high = (math.log10(points[end][0]) for end in (0, -1))
    bottom = HEIGHT - FOOT
    x = lambda clients: left + (math.log10(clients) - low) / max(high - low, 0.1) * width
    y = lambda value: bottom - value / top * (bottom - TOP)
    parts = [f'<text class="head" x="{left}" y="{TOP - 22}">{title}</text>',
             f'<line class="grid" x1="{left}" y1="{bottom}" x2="{left + width}" y2="{bottom}"/>']
    path = " ".join(f"{x(clients):.1f},{y(value):.1f}" for clients, value in points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for clients, value in points:
        parts += [f'<circle class="dot" cx="{x(clients):.1f}" cy="{y(value):.1f}" r="4"/>',
                  f'<text x="{x(clients):.1f}" y="{y(value) - 10:.1f}" text-anchor="middle">{value:.3g}{unit}</text>',
                  f'<text class="soft" x="{x(clients):.1f}" y="{bottom + 20}" text-anchor="middle">'
                  f'{clients // 1000}k</text>']
    return parts


def draw(points):
    width = (WIDTH - 2 * LEFT - GAP) / 2
    cost = [(clients, result["server"]["cpu_per_million"]) for clients, result in points]
    memory = [(clients, result["server"]["bytes_per_connection"] / 1000) for clients, result in points]
    parts = panel(LEFT, width, "CPU seconds per million deliveries", cost, "")
    parts += panel(LEFT + width + GAP, width, "kB per connection", memory, "")
    parts.append(f'<text class="soft" x="{LEFT}" y="24">chat at 20,000 a second, by the number of clients</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">{STYLE}'
            f'<rect class="back" width="{WIDTH}" height="{HEIGHT}" rx="12"/>\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    if len(sys.argv) != 2 or not pathlib.Path(sys.argv[1]).is_dir():
        sys.exit("goals: give the directory that scripts/bench.sh --goals named")
    directory = pathlib.Path(sys.argv[1])
    latency, sizes, sessions = (results(directory, kind) for kind in ("half-rate", "size", "session"))
    if latency:
        show_latency(latency)
    if sessions:
        show_sessions(sessions)
    if sizes:
        points = sorted((int(name), result) for name, result in sizes.items())
        show_sizes(points)
        (directory / "sizes.svg").write_text(draw(points))
        print(f"goals: {directory / 'sizes.svg'} has the plot")


main()
