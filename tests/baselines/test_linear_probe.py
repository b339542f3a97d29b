"""The probe sees what is in the features, and nothing but the features."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.baselines import toy
from tests.tiny_models import ARCHITECTURES, MASKED, tiny

from mezo.baselines.linear_probe import METHOD, linear_probe
from mezo.baselines.probe import candidate_features, prompt_features
from mezo.errors import MezoError
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import read_metrics
from mezo.runs.summary import read_summary
from mezo.scoring import Example

EXAMPLES = [
    Example((5, 6, 7, 8), ((9,), (10, 11)), 1),
    Example((5, 6), ((12, 13),), 0),
    Example((20, 21, 22), ((9,), (10,)), 0),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.base(tmp_path_factory.mktemp("models") / "base")


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n not in MASKED])
def test_a_feature_is_what_the_head_is_given(name: str) -> None:
    """Padding and order change nothing but rounding: each row by itself, through a hook on the head."""
    model, seen = tiny(name), []
    found = [prompt_features(model, EXAMPLES, pad=0), candidate_features(model, EXAMPLES, pad=0)]
    rows = [e.prompt for e in EXAMPLES], [e.prompt + c for e in EXAMPLES for c in e.candidates]
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda m, given: seen.append(given[0]))
    with torch.no_grad():
        for features, texts in zip(found, rows, strict=True):
            seen.clear()
            for row in texts:
                model(input_ids=torch.tensor([row]))
            expected = np.stack([hidden[0, -1].numpy() for hidden in seen])
            # hidden states of order 1 to 10 after two layers in float32: tens of roundings of 6e-8 * 10
            np.testing.assert_allclose(features, expected, atol=5e-5)
    hook.remove()


def test_a_masked_models_feature_is_at_its_mask() -> None:
    model = tiny("bert")
    example = Example((5, 3, 7, 8), ((9,), (10,)), 1, mask_position=1)
    with torch.no_grad():
        expected = [
            model.base_model(input_ids=torch.tensor([[5, token, 7, 8]])).last_hidden_state[0, 1].numpy()
            for token in (3, 9, 10)
        ]
    found = np.concatenate([f(model, [example], 0) for f in (prompt_features, candidate_features)])
    np.testing.assert_allclose(found, expected, atol=5e-5)


@pytest.mark.parametrize("name", ["llama", "roberta"])
def test_it_beats_chance_where_classes_can_be_told_apart(tmp_path: Path, name: str) -> None:
    data = toy.reviews(tmp_path / "reviews", train=40, validation=40)
    found = linear_probe(toy.config(toy.base(tmp_path / "base", name), data), output=tmp_path / "probe")
    # by chance 32 of 40 are right once in 11,000 times (binomial tail)
    assert found["accuracy"] >= 0.8
    assert found["metrics"] == {"accuracy": found["accuracy"]}
    assert found["loss"] < np.log(2)
    assert found["peak_memory_bytes"] > 0

    run = RunFolder.open(tmp_path / "probe")
    (record,) = read_metrics(run.metrics).evals
    assert (record.accuracy, record.loss) == (found["accuracy"], found["loss"])
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.method == METHOD
    with np.load(run.path / "probe.npz") as weights:
        assert weights["coefficients"].shape == (1, 32)
        assert weights["classes"].tolist() == [0, 1]


def test_candidates_of_their_own_are_judged_one_by_one(base: Path, tmp_path: Path) -> None:
    """COPA has no classes: which of two endings it is."""
    (tmp_path / "copa").mkdir()
    for split in ("train", "validation"):
        rows = [
            {
                "premise": f"the cup fell {n}",
                "choice1": "it broke" if n % 3 else "it sang",
                "choice2": "it sang" if n % 3 else "it broke",
                "question": "effect",
                "label": 0 if n % 3 else 1,
            }
            for n in range(30)
        ]
        (tmp_path / "copa" / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = linear_probe(toy.config(base, tmp_path / "copa", task="copa"))
    assert found["accuracy"] >= 0.9


def test_a_task_without_candidates_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(MezoError, match=r"chooses between candidates.*'prompt-completion' has none"):
        linear_probe(toy.config(base, tmp_path, task="prompt-completion"))


def test_one_class_is_not_enough(base: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.jsonl").write_text('{"sentence": "good", "label": 1}\n' * 4)
    with pytest.raises(MezoError, match=r"at least 2 classes, found 4, all of one"):
        linear_probe(toy.config(base, tmp_path / "data"))


def test_a_validation_split_is_needed(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text('{"sentence": "good", "label": 1}\n' * 4)
    with pytest.raises(MezoError, match=r"needs a validation split"):
        linear_probe(toy.config(base, file))
