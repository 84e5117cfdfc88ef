"""The plot of `scripts/peers/table.py`: one SVG without outside assets, readable in the dark.

Two panels of bars on logarithmic axes, since servers differ by more than a factor of ten: CPU seconds
per million deliveries, and kB per connection. A line over a bar is the range of its rounds.
"""

import math
from html import escape

WIDTH = 860
LEFT = 270
RIGHT = 70
BAR = 15
GAP = 16
COLOURS = {"vorpal": ("#2b6cee", "#6d9dff"), "prosody": ("#d9822b", "#f0a658"),
           "ejabberd": ("#8b5fd3", "#b794f4"), "floor": ("#8a93a1", "#7d8796")}


def style():
    light = "".join(f".{name} {{ fill: {colour[0]}; }} " for name, colour in COLOURS.items())
    dark = "".join(f".{name} {{ fill: {colour[1]}; }} " for name, colour in COLOURS.items())
    return (f"<style>text {{ font: 13px system-ui, sans-serif; fill: #1b1f27; }} .soft {{ fill: #69707d; }} "
            f".back {{ fill: #fff; }} .grid {{ stroke: #e3e6ea; }} .range {{ stroke: #1b1f27; }} "
            f".head {{ font-weight: 600; font-size: 15px; }} {light}"
            "@media (prefers-color-scheme: dark) { text { fill: #e8ebf0; } .soft { fill: #98a1af; } "
            f".back {{ fill: #1a1f28; }} .grid {{ stroke: #2b323e; }} .range {{ stroke: #e8ebf0; }} {dark}}}</style>")


def axis(values):
    """The decades around all values, as exponents of ten."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


class Panel:
    """Bars of one figure, from `top` on."""

    def __init__(self, top, values):
        self.top, self.low_high = top, axis(values)
        self.parts = []

    def x(self, value):
        low, high = self.low_high
        share = (math.log10(value) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def text(self, x, y, words, kind="", anchor="start"):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" '
                          f'text-anchor="{anchor}">{escape(words)}</text>')

    def line(self, kind, x1, y1, x2, y2):
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" '
                          f'x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def bar(self, y, server, value):
        end = self.x(value["median"])
        self.parts.append(f'<rect class="{server}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" '
                          f'height="{BAR - 3}" rx="2"/>')
        middle = y + (BAR - 3) / 2
        self.line("range", self.x(value["min"]), middle, self.x(value["max"]), middle)
        self.text(max(end, self.x(value["max"])) + 6, y + BAR - 4, f"{value['median']:.3g}", "soft")

    def grid(self, bottom):
        lines = self.parts
        self.parts = []
        for exponent in range(self.low_high[0], self.low_high[1] + 1):
            x = self.x(10.0 ** exponent)
            self.line("grid", x, self.top + 12, x, bottom)
            self.text(x, bottom + 16, f"{10.0 ** exponent:g}", "soft", "middle")
        self.parts += lines


def scaled(value, scale):
    return value and {name: number / scale for name, number in value.items()}


def panel(top, title, found, loads, figure, scale):
    """(its parts, its bottom)"""
    rows = {load: {server: scaled(findings.get(figure), scale) for server, findings in found[load].items()}
            for load in loads}
    rows = {load: {s: v for s, v in row.items() if v and v["min"] > 0} for load, row in rows.items()}
    values = [value[end] for row in rows.values() for value in row.values() for end in ("min", "max")]
    if not values:
        return [], top
    drawn = Panel(top, values)
    drawn.text(14, top, title, "head")
    y = top + 18
    for load, row in rows.items():
        if not row:
            continue
        drawn.text(14, y + BAR - 4, loads[load])
        for server, value in row.items():
            drawn.bar(y, server, value)
            y += BAR
        y += GAP
    drawn.grid(y - GAP + 4)
    return drawn.parts, y + 34


def legend(servers):
    parts, x = [], 14
    for name, label in servers.items():
        parts.append(f'<rect class="{name}" x="{x}" y="16" width="12" height="12" rx="2"/>'
                     f'<text x="{x + 18}" y="27">{escape(label)}</text>')
        x += 110
    return parts


def draw(found, loads, servers):
    """The SVG of `found` ({load: {server: {figure: {median, min, max}}}}) with titles by `loads`, `servers`."""
    chats = {load: title for load, title in loads.items() if not load.startswith("memory")}
    memory = {load: title for load, title in loads.items() if load.startswith("memory")}
    parts = legend(servers)
    more, bottom = panel(58, "CPU seconds per million deliveries, logarithmic: less is better",
                         found, chats, "cpu_per_million", 1)
    parts += more
    more, bottom = panel(bottom + 6, "kB per connection, logarithmic: less is better",
                         found, memory, "bytes_per_connection", 1000)
    parts += more
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom}">{style()}'
            f'<rect class="back" width="{WIDTH}" height="{bottom}" rx="12"/>\n' + "\n".join(parts) + "\n</svg>\n")
