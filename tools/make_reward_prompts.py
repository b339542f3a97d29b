"""Makes examples/data/arithmetic and examples/data/ticket-forms: prompts for runs by rewards.

arithmetic: sums, differences and products of two digits. ticket-forms: support tickets to be sorted, with the answer as a
JSON object. No problem and no product of a held-out row is in a training row.

    python -m tools.make_reward_prompts
"""

import json
import operator
import random
from collections.abc import Iterable
from pathlib import Path

from tools.make_preferences import OPENINGS, PRODUCTS, TROUBLES

FOLDER = Path(__file__).parents[1] / "examples" / "data"
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
HELD_OUT = 3  # one problem in so many
TICKET = (
    'Ticket: {text}\nAnswer as JSON, like {{"team": "web", "urgent": false}}. Teams: web, billing, mobile.'
)


def problems() -> dict[str, list[dict[str, object]]]:
    """All sums and products of two digits, and the differences that are not negative."""
    found = [
        {"prompt": f"Question: What is {a} {sign} {b}?\nAnswer:", "completion": f" {operation(a, b)}"}
        for sign, operation in OPERATIONS.items()
        for a in range(10)
        for b in range(10)
        if operation(a, b) >= 0
    ]
    random.Random("arithmetic").shuffle(found)
    held_out = len(found) // HELD_OUT
    return {"train": found[held_out:], "validation": found[:held_out]}


def tickets() -> dict[str, list[dict[str, object]]]:
    """All products with all troubles, in all wordings."""
    found: dict[str, list[dict[str, object]]] = {}
    for split, products in PRODUCTS.items():
        asked = (
            opening.format(product=product, Product=product.capitalize(), trouble=trouble)
            for product in products
            for trouble in TROUBLES
            for opening in OPENINGS
        )
        found[split] = [{"prompt": [{"role": "user", "content": TICKET.format(text=text)}]} for text in asked]
        random.Random(f"tickets {split}").shuffle(found[split])
    return found


def write(name: str, splits: dict[str, list[dict[str, object]]]) -> None:
    """A file for each split."""
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text(_lines(rows), encoding="utf-8")


def _lines(rows: Iterable[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def main() -> None:
    write("arithmetic", problems())
    write("ticket-forms", tickets())


if __name__ == "__main__":
    main()
