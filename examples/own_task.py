"""A new task: which team does a ticket belong to? Rows become a prompt and one answer for each team."""

import argparse
from dataclasses import dataclass

import mezo
from mezo.tasks import Row, TextExample
from mezo.tasks.classification import Classification

TICKETS = [
    {"ticket": "the login page is blank", "label": "web"},
    {"ticket": "the invoice has the wrong address", "label": "billing"},
    {"ticket": "buttons do nothing in the new browser", "label": "web"},
    {"ticket": "I was charged twice", "label": "billing"},
]


@dataclass(frozen=True, kw_only=True)
class Tickets(Classification):
    """`ticket`, `label`: the name of a team."""

    name: str = "tickets"
    fields: tuple[str, ...] = ("ticket", "label")
    classes: tuple[tuple[str, ...], ...] = (("web",), ("billing",))
    label_words: tuple[str, ...] = (" web", " billing")

    def causal(self, row: Row) -> TextExample:
        """The prompt of a causal model, and the words that may follow it."""
        return self.asked(row, row.text("ticket"), head="Ticket: ", tail="\nTeam:")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()

    train = mezo.MeZODataset(TICKETS, task=Tickets())
    config = mezo.MeZOConfig.build(
        model=given.model, task="sst2", learning_rate=1e-5, batch_size=4, num_steps=given.steps
    )
    result = mezo.MeZOTrainer(config, train=train, validation=train).train()
    print(
        f"accuracy before and after: {result.metrics['accuracy_before']}, {result.metrics['accuracy_after']}"
    )


if __name__ == "__main__":
    main()
