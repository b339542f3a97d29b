"""The demo data: what the script writes, balanced, and nothing seen in training comes back."""

import re

from tools.make_demo_data import FRAMES, PER_DOMAIN, ROOT, build

from mezo.data import MeZODataset


def sentences(split: str) -> list[str]:
    return [row["sentence"] for row in MeZODataset(None, task="demo", split=split)]


def test_the_files_are_what_the_script_writes() -> None:
    for split in PER_DOMAIN:
        assert list(MeZODataset(None, task="demo", split=split)) == build(split)
        assert (ROOT / "src" / "mezo" / "data" / "demo" / f"{split}.jsonl").read_bytes().endswith(b"}\n")


def test_sizes_and_balance() -> None:
    for split, size in (("train", 400), ("validation", 200)):
        labels = [row["label"] for row in MeZODataset(None, task="demo", split=split)]
        assert (len(labels), sum(labels)) == (size, size // 2)


def test_no_review_twice() -> None:
    both = [s.lower() for split in PER_DOMAIN for s in sentences(split)]
    assert len(set(both)) == len(both) == 600


def test_no_clause_in_both_splits() -> None:
    clauses = {
        split: {
            clause
            for sentence in sentences(split)
            for clause in re.split(r"[.,:;!] ?|\band\b|\bbecause\b", sentence.lower())
            if len(clause.split()) > 4  # shorter ones are such as "I was delighted"
        }
        for split in PER_DOMAIN
    }
    assert not clauses["train"] & clauses["validation"]


def test_no_verdict_in_both_splits() -> None:
    def verdicts(split: str) -> set[str]:
        return {
            frame for frames in FRAMES[split].values() for frame in frames if re.search("[a-z]{4}", frame)
        }

    assert not verdicts("train") & verdicts("validation")


def test_they_read_as_sentences() -> None:
    for split in PER_DOMAIN:
        for sentence in sentences(split):
            assert sentence[0].isupper()
            assert sentence[-1] in ".!"
            assert sentence == " ".join(sentence.split())
            assert not re.search(r"[{}_]|[.,;:!]{2}| [.,;:!]", sentence)
            assert 3 <= len(sentence.split()) <= 32
