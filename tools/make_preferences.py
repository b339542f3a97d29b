"""Makes examples/data/support-preferences: pairs of answers to support tickets, one polite and one rude.

The products of the held-out rows are in no training row, and neither are the beginnings of their answers.

    python -m tools.make_preferences
"""

import json
import random
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "examples" / "data" / "support-preferences"
PRODUCTS = {
    "train": (
        "the web shop",
        "the calendar",
        "the export to CSV",
        "the mobile app",
        "the invoice page",
        "the search",
    ),
    "validation": ("the password reset", "the report builder", "the chat window", "the backup"),
}
TROUBLES = (
    "cuts off the last line",
    "shows an empty page",
    "takes a minute to open",
    "forgets what I typed",
    "sends every mail twice",
    "shows the wrong date",
    "asks me to log in again and again",
    "stopped working this morning",
)
OPENINGS = (
    "Hello, {product} {trouble}.",
    "{Product} {trouble}. Why?",
    "Since the update {product} {trouble}.",
)
GREETINGS = {
    "train": (
        "Thank you for telling us.",
        "I am sorry about that.",
        "Thanks for writing, and sorry for the trouble.",
    ),
    "validation": ("We are sorry to hear this.", "Thank you for the report."),
}
HELP = (
    "We will look into {product} today and write to you.",
    "Could you tell us which browser you use, so that we can find the cause in {product}?",
    "Our team is mending {product} right now, and you will hear from us this afternoon.",
)
RUDE = {
    "train": ("Not our problem.", "Again one of these tickets.", "Nobody else complains."),
    "validation": ("You must have done something wrong.", "This is a waste of my time."),
}
DISMISSALS = (
    "Read the manual before you write about {product}.",
    "Nothing is wrong with {product}, so stop asking.",
    "Try {product} again, or use something else.",
)


def rows(split: str) -> list[dict[str, object]]:
    """All products with all troubles, worded by chance."""
    draw = random.Random(f"preferences {split}")
    found: list[dict[str, object]] = []
    for product in PRODUCTS[split]:
        for trouble in TROUBLES:
            for opening in OPENINGS:
                asked = opening.format(product=product, Product=product.capitalize(), trouble=trouble)
                polite = f"{draw.choice(GREETINGS[split])} {draw.choice(HELP)}".format(product=product)
                rude = f"{draw.choice(RUDE[split])} {draw.choice(DISMISSALS)}".format(product=product)
                found.append(
                    {
                        "prompt": [{"role": "user", "content": asked}],
                        "chosen": [{"role": "assistant", "content": polite}],
                        "rejected": [{"role": "assistant", "content": rude}],
                    }
                )
    draw.shuffle(found)
    return found


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for split in PRODUCTS:
        lines = "".join(json.dumps(row) + "\n" for row in rows(split))
        (FOLDER / f"{split}.jsonl").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    main()
