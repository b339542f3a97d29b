"""Draw docs/images/architecture.svg from the imports of src/mezo: `python -m tools.draw_architecture`.

Every file and folder at the top of src/mezo is a box, above all that it imports. A line leads to a box that is needed
directly, unless another line leads there already by way of a third box. Below: what flows through a step.
"""

import ast
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "mezo"
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# What flows through one step, and the file that makes it so.
FLOW = (
    ("rows", "tasks/base.py"),
    ("a batch", "data/dataset.py"),
    ("probes", "estimators/base.py"),
    ("losses", "engines/base.py"),
    ("an update", "types.py"),
    ("theta", "weights/weights.py"),
    ("a RUN", "runs/folder.py"),
)
WIDTH, BOX, HIGH, ROW = 1080, 112, 30, 64
LEFT, TOP = 20, 46


def needs() -> dict[str, set[str]]:
    """For each file and folder at the top: the others that it imports, in functions and for types too."""
    tops = {p.stem for p in SOURCE.iterdir() if p.is_dir() or p.suffix == ".py"} - {"__pycache__", "__init__"}
    found: dict[str, set[str]] = {name: set() for name in tops}
    for path in SOURCE.rglob("*.py"):
        name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            others = {m.split(".")[1] for m in modules if m.startswith("mezo.")} & tops
            if name in found:
                found[name] |= others - {name}
    return found


def levels(needs: dict[str, set[str]]) -> list[list[str]]:
    """Lowest first: each name after all that it needs. Raises ValueError for a circle."""
    rows: list[list[str]] = []
    done: set[str] = set()
    while left := needs.keys() - done:
        row = sorted(name for name in left if needs[name] <= done)
        if not row:
            raise ValueError(f"these import each other in a circle: {', '.join(sorted(left))}")
        rows.append(row)
        done |= set(row)
    return rows


def direct(needs: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The pairs that no third name connects."""
    reach: dict[str, set[str]] = {}
    for row in levels(needs):
        for name in row:
            reach[name] = needs[name].union(*(reach[other] for other in needs[name]))
    return {
        (name, other)
        for name, others in needs.items()
        for other in others
        if not any(other in reach[third] for third in others - {other})
    }


def drawn() -> str:
    """The picture, as SVG text."""
    graph = needs()
    rows = levels(graph)
    place: dict[str, tuple[float, float]] = {}
    for number, row in enumerate(reversed(rows)):
        across = (WIDTH - 2 * LEFT - len(row) * BOX) / (len(row) + 1)
        for i, name in enumerate(row):
            place[name] = (LEFT + across + i * (BOX + across), TOP + number * ROW)
    bottom = TOP + len(rows) * ROW
    parts = [_text(LEFT, 26, "Who imports whom: each box needs only boxes below it", "title")]
    for name, other in sorted(direct(graph)):
        (x, y), (u, v) = place[name], place[other]
        a, b, c = x + BOX / 2, y + HIGH, u + BOX / 2
        parts.append(
            f'<path class="line" d="M{a:.0f} {b:.0f}C{a:.0f} {b + 24:.0f} {c:.0f} {v - 24:.0f} {c:.0f} {v:.0f}"/>'
        )
    for name, (x, y) in sorted(place.items()):
        parts.append(
            _box(x, y, BOX, name if (SOURCE / name).is_dir() else f"{name}.py", (SOURCE / name).is_dir())
        )
    parts.append(_text(LEFT, bottom + 30, "What flows through a step", "title"))
    wide = (WIDTH - 2 * LEFT - (len(FLOW) - 1) * 22) / len(FLOW)
    for i, (what, path) in enumerate(FLOW):
        x, y = LEFT + i * (wide + 22), bottom + 44
        parts.append(_box(x, y, wide, what, True))
        parts.append(_text(x + wide / 2, y + HIGH + 16, path, "small"))
        if i:
            parts.append(f'<path class="arrow" d="M{x - 20:.0f} {y + HIGH / 2:.0f}h14m-5 -4l5 4l-5 4"/>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 110}" role="img" '
        'aria-label="The folders of src/mezo by who imports whom, and what flows through a step">\n'
        "<style>rect{fill:#eef1fb;stroke:#3f51b5}rect.file{fill:#fff}rect.all{fill:#fff;stroke:none}"
        "text{font:12px system-ui,sans-serif;fill:#1b1f2b;text-anchor:middle}"
        ".title{font-size:14px;font-weight:600;text-anchor:start}.small{font-size:10px;fill:#555}"
        ".line{fill:none;stroke:#9aa3c7;stroke-width:1}.arrow{fill:none;stroke:#3f51b5;stroke-width:1.5}</style>\n"
        f'<rect class="all" width="{WIDTH}" height="{bottom + 110}"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _box(x: float, y: float, width: float, text: str, folder: bool) -> str:
    kind = "folder" if folder else "file"
    return (
        f'<rect class="{kind}" x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{HIGH}" rx="4"/>'
        + _text(x + width / 2, y + HIGH / 2 + 4, text, "name")
    )


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
