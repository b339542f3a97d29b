"""Writes the demo data, src/mezo/data/demo/{train,validation}.jsonl, from tools/demo_parts.yaml.

    python tools/make_demo_data.py

Some reviews are written whole; the others are put together from clauses: one alone, two of a
kind, or two that disagree, with a verdict to settle it. The same parts give the same files.
"""

import json
import os
from pathlib import Path
from typing import Any

import yaml

from mezo.data.sampling import permutation

ROOT = Path(__file__).resolve().parents[1]
PER_DOMAIN = {"train": 20, "validation": 10}  # reviews of each label in each domain

# {a} and {b} are clauses of the review's own label about two things; {x} is one of the other label
# about a third thing, of less weight. Keyed by label.
FRAMES: dict[str, dict[int, tuple[str, ...]]] = {
    "train": {
        1: (
            "{a}.",
            "{a}, and {b}.",
            "True, {x}, but {a}, and that more than made up for it.",
            "{a}. Warmly recommended.",
            "{a}, {b}, and I was delighted.",
            "I was prepared for the worst, but {a}.",
            "{a}; {b}.",
            "Although {x}, I was more than happy, because {a}.",
            "What a pleasure: {a}.",
            "It was not perfect, since {x}, yet {a}, and in the end nothing else mattered.",
            "Not for a moment did I regret it: {a}, and {b}.",
        ),
        0: (
            "{a}.",
            "{a}, and {b}.",
            "Yes, {x}, but {a}, and that spoiled it for me.",
            "{a}. Do not waste your money.",
            "{a}, {b}, and I was furious.",
            "I had been looking forward to it, but {a}.",
            "{a}; {b}.",
            "Although {x}, I was bitterly disappointed, because {a}.",
            "What a letdown: {a}.",
            "It was not all bad, since {x}, yet {a}, and in the end nothing else mattered.",
            "Not for a moment did I enjoy it: {a}, and {b}.",
        ),
    },
    "validation": {
        1: (
            "{a}.",
            "{a}. On top of that, {b}.",
            "I will grant that {x}, but {a}, and I would gladly pay again.",
            "{a}. I would not change a thing.",
            "I cannot complain: {a}, and {b}.",
            "Ignore anyone who grumbles, because {a}.",
            "{x}, it is true, and still I was won over, for {a}.",
            "{a}. Full marks!",
        ),
        0: (
            "{a}.",
            "{a}. On top of that, {b}.",
            "I will grant that {x}, but {a}, and I would not go near it again.",
            "{a}. I want my money back.",
            "I cannot be kind: {a}, and {b}.",
            "Ignore anyone who raves about it, because {a}.",
            "{x}, it is true, and still I was let down, for {a}.",
            "{a}. Stay away!",
        ),
    },
}


def build(split: str) -> list[dict[str, Any]]:
    """The examples of a split, in the order of the file."""
    parts = yaml.safe_load((ROOT / "tools" / "demo_parts.yaml").read_text(encoding="utf-8"))[split]
    rows = [
        {"sentence": sentence, "label": label}
        for number, (domain, part) in enumerate(parts.items())
        for label in (0, 1)
        for sentence in reviews(split, domain, part, label, number)
    ]
    return [rows[i] for i in permutation(len(rows), "demo", split)]


def reviews(split: str, domain: str, part: dict[str, Any], label: int, number: int) -> list[str]:
    """The reviews of one label in the domain with this number: those written whole, then the others."""
    whole = part["good" if label else "bad"]
    frames = FRAMES[split][label]
    aspects = part["aspects"]
    own, other = 1 - label, label  # in a pair, the good clause comes first
    order = permutation(len(aspects), "aspects", split, domain, label)
    weighty, slight = aspects[: (len(aspects) + 1) // 2], aspects[(len(aspects) + 1) // 2 :]
    contrasts = number
    made = []
    for k in range(PER_DOMAIN[split] - len(whole)):
        frame = frames[(k + 5 * number) % len(frames)]
        turn, place = divmod(k, len(order))
        a, b, x = aspects[order[place]], aspects[order[(place + turn + 1) % len(order)]], None
        if "{x}" in frame:  # what decides must weigh more than what is granted
            turn, place = divmod(contrasts, len(weighty))
            a, x = weighty[place], slight[(turn + place) % len(slight)]
            contrasts += 1
        text = frame.format(a=a[own], b=b[own], x=x and x[other])
        made.append(text[0].upper() + text[1:])
    return [*whole, *made]


def main() -> None:
    for split in PER_DOMAIN:
        path = ROOT / "src" / "mezo" / "data" / "demo" / f"{split}.jsonl"
        temporary = path.with_suffix(".tmp")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in build(split))
        temporary.write_text("".join(lines), encoding="utf-8")
        os.replace(temporary, path)


if __name__ == "__main__":
    main()
