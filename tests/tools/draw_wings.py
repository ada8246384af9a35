"""A drawing of the wings and their imports: docs/images/wings.svg.

    PYTHONPATH=tests python -m tools.draw_wings

A wing stands above all wings that it imports. An arrow is left out if a longer path has the same ends.
"""

from __future__ import annotations

from graphlib import TopologicalSorter
from html import escape
from pathlib import Path

from support.wings import FACES, FILES, GROUND, ours, wing

DRAWING = Path(__file__).resolve().parents[2] / "docs" / "images" / "wings.svg"
BOX = 110, 30  # width and height
GAP = 24, 46  # beside a box, and below it
STYLE = (
    "rect{fill:#eef3f8;stroke:#4a6785}.face{fill:#fdf3e1;stroke:#a6772b}"
    "text{font:13px sans-serif;text-anchor:middle;fill:#1d2b3a}path{fill:none;stroke:#7d8fa3}"
)


def imports_of_wings() -> dict[str, set[str]]:
    """Return the wings, and faces, that each wing or face imports, without the ground."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        if wing(file) not in GROUND:
            others = {wing(other) for other in ours(file)} - GROUND - {wing(file)}
            found.setdefault(wing(file), set()).update(others)
    return found


def without_detours(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the graph without arrows whose end another path reaches: its transitive reduction."""
    reached: dict[str, set[str]] = {}
    for name in TopologicalSorter(graph).static_order():
        reached[name] = graph[name].union(*(reached[other] for other in graph[name]))
    return {
        name: {end for end in ends if not any(end in reached[other] for other in ends)}
        for name, ends in graph.items()
    }


def rows_of(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the wings in rows, the lowest first: each stands one row above the highest that it imports."""
    depth: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        depth[name] = 1 + max((depth[other] for other in graph[name]), default=-1)
    return [sorted(name for name in depth if depth[name] == row) for row in range(max(depth.values()) + 1)]


def draw(graph: dict[str, set[str]]) -> str:
    """Return the drawing as SVG."""
    rows = rows_of(graph)[::-1]
    (width, height), (beside, below) = BOX, GAP
    whole = max(map(len, rows)) * (width + beside) + beside
    places = {
        name: (whole / 2 + (width + beside) * (column - (len(row) - 1) / 2), number * (height + below) + 10)
        for number, row in enumerate(rows)
        for column, name in enumerate(row)
    }
    lines = []
    for name, ends in sorted(without_detours(graph).items()):
        for end in sorted(ends):
            (x, y), (to_x, to_y) = places[name], places[end]
            bend = (to_y - y - height) / 2
            lines.append(
                f'<path d="M{x:.0f} {y + height} C{x:.0f} {y + height + bend:.0f} '
                f'{to_x:.0f} {to_y - bend:.0f} {to_x:.0f} {to_y}"/>'
            )
    for name, (x, y) in places.items():
        kind = ' class="face"' if name in FACES else ""
        lines.append(
            f'<rect{kind} x="{x - width / 2:.0f}" y="{y}" width="{width}" height="{height}" rx="4"/>'
        )
        lines.append(f'<text x="{x:.0f}" y="{y + height / 2 + 5:.0f}">{escape(name)}</text>')
    tall = len(rows) * (height + below)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{tall}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *lines, "</svg>", ""])


if __name__ == "__main__":
    DRAWING.write_text(draw(imports_of_wings()))
