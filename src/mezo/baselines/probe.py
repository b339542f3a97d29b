"""A linear classifier on frozen features, by scikit-learn."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from mezo.baselines.gradients import padded
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.scoring import Example

_TOKENS = 8192  # of a pass, padding included


def prompt_features(model: Any, examples: Sequence[Example], pad: int) -> np.ndarray:
    """(N, H) float32: the final hidden state of each prompt's last token, or of its mask."""
    rows = [e.prompt for e in examples]
    return _hidden(model, rows, [_place(e, len(row)) for e, row in zip(examples, rows, strict=True)], pad)


def candidate_features(model: Any, examples: Sequence[Example], pad: int) -> np.ndarray:
    """(C, H) float32: of every candidate of every example, in order, read at its last token.

    A masked model's candidate stands in the place of the mask.
    """
    rows = [_filled(e, c) for e in examples for c in e.candidates]
    asked = [e for e in examples for _ in e.candidates]
    return _hidden(model, rows, [_place(e, len(row)) for e, row in zip(asked, rows, strict=True)], pad)


def _place(example: Example, length: int) -> int:
    return length - 1 if example.mask_position is None else example.mask_position


def _filled(example: Example, candidate: tuple[int, ...]) -> tuple[int, ...]:
    if example.mask_position is None:
        return example.prompt + candidate
    before, after = example.prompt[: example.mask_position], example.prompt[example.mask_position + 1 :]
    return before + candidate + after


@torch.no_grad()
def _hidden(model: Any, rows: Sequence[tuple[int, ...]], places: Sequence[int], pad: int) -> np.ndarray:
    """(len(rows), H) hidden states after the last layer and its norm, before the head; rows of like
    lengths go through the model together."""
    body, device = model.base_model, next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, np.ndarray] = {}
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(rows[order[stop]]) * (stop + 1 - start) <= _TOKENS:
            stop += 1
        members = order[start:stop]
        ids, mask = (x.to(device) for x in padded([rows[i] for i in members], pad))
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, H)
        read = states[torch.arange(len(members)), torch.tensor([places[i] for i in members])]
        found |= zip(members, read.float().cpu().numpy(), strict=True)
        start = stop
    return np.stack([found[i] for i in range(len(rows))])


STRENGTHS = [10.0**n for n in range(-5, 2)]  # C of scikit-learn: inverse regularisation
_FOLDS = 5


@dataclass
class LinearProbe:
    """A classifier on hidden states.

    shared: all examples choose among the same candidates, so there is one class for each, read from
    the prompt. Else (COPA, ReCoRD) every candidate is judged right or wrong alone, and the most probable
    one wins.
    """

    shared: bool
    classifier: Any = field(init=False, default=None)  # scikit-learn's pipeline, once it is fitted

    @property
    def strength(self) -> float:
        """The C that was chosen: of the best mean log-likelihood over the folds, or the middle one."""
        return self.classifier[-1].C

    def features(self, loaded: LoadedModel, examples: Sequence[Example]) -> np.ndarray:
        """(N, H) where the candidates are shared, else (all candidates, H)."""
        make = prompt_features if self.shared else candidate_features
        return make(loaded.model, examples, loaded.pad_token_id)

    def fit(self, features: np.ndarray, examples: Sequence[Example]) -> None:
        """Raises MezoError if the examples are all of one class, or scikit-learn is not installed."""
        if find_spec("sklearn") is None:
            raise MezoError("linear probing needs scikit-learn: pip install 'mezo-llm[baselines]'")
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, StratifiedKFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        right = [
            e.answer if self.shared else [int(c in e.right) for c in range(len(e.candidates))]
            for e in examples
        ]
        labels = np.array(right) if self.shared else np.concatenate(right)
        classes, counts = np.unique(labels, return_counts=True)
        if len(classes) < 2:
            raise MezoError(
                f"linear probing needs training examples of at least 2 classes, found {len(labels)}, all of one"
            )
        folds, middle = min(_FOLDS, int(counts.min())), STRENGTHS[len(STRENGTHS) // 2]
        fitted: Any = make_pipeline(StandardScaler(), LogisticRegression(C=middle, max_iter=1000))
        if folds >= 2:
            cuts = StratifiedKFold(folds, shuffle=True, random_state=0)
            grid = {"logisticregression__C": STRENGTHS}
            fitted = GridSearchCV(fitted, grid, scoring="neg_log_loss", cv=cuts)
        with warnings.catch_warnings():
            # with weak regularisation and few examples the optimum is at infinity; near it is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            fitted.fit(features, labels)
        self.classifier = fitted.best_estimator_ if folds >= 2 else fitted

    def logprobs(self, features: np.ndarray, examples: Sequence[Example]) -> list[np.ndarray]:
        """For each example, the log-probability of each of its candidates, normalised over them."""
        known = self.classifier.predict_log_proba(features)
        if not self.shared:
            borders = np.cumsum([len(e.candidates) for e in examples])[:-1]
            odds = np.split(known[:, 1] - known[:, 0], borders)
            return [x - np.logaddexp.reduce(x) for x in odds]
        table = np.full((len(examples), len(examples[0].candidates)), -np.inf)
        table[:, self.classifier.classes_] = known  # a class nobody showed it has no probability
        return list(table)
