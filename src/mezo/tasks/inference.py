"""Does one text follow from another? What SNLI, MNLI, RTE and CB share."""

from dataclasses import dataclass

from mezo.tasks.base import MASK, TextExample
from mezo.tasks.classification import Classification
from mezo.tasks.row import Row

ENTAILMENT = ("entailment", "entails")
NEUTRAL = ("neutral",)
CONTRADICTION = ("contradiction", "contradicts")
# The names in the original files of SNLI and MNLI, and in GLUE.
ALIASES = (
    ("sentence1", "premise"),
    ("sentence2", "hypothesis"),
    ("gold_label", "label"),
)


@dataclass(frozen=True, kw_only=True)
class Inference(Classification):
    """`premise`, `hypothesis`, `label`."""

    fields: tuple[str, ...] = ("premise", "hypothesis", "label")
    aliases: tuple[tuple[str, str], ...] = ALIASES

    def supposed(self, row: Row) -> TextExample:
        """The causal form of three classes: MeZO, Table 14, CB."""
        premise, hypothesis = row.text("premise"), row.text("hypothesis")
        tail = f' Can we infer that "{hypothesis}"? Yes, No, or Maybe?\n'
        return self.asked(row, premise, head="Suppose ", tail=tail)

    def masked(self, row: Row) -> TextExample:
        """MeZO, Table 13: the premise as a question, then the mask, then the hypothesis.

        As in the published code the premise loses its full stop and the hypothesis its first capital;
        there any last character goes, here only one of .!?;:, so that no letter is lost.
        """
        premise, hypothesis = row.text("premise").strip(), row.text("hypothesis").strip()
        lowered = hypothesis[:1].lower() + hypothesis[1:]
        premise = premise[:-1].rstrip() if premise.endswith(tuple(".!?;:,")) else premise
        return self.asked(row, premise, tail=f"? {MASK}, {lowered}")
