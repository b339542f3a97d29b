"""Label words' rows fitted to frozen features: the ridge regression behind `start=linear-probe`.

With frozen features h, a change D of the rows of the candidates' first tokens changes the log-probabilities of these
tokens to log p + h D - log(1 - sum p + sum p exp(h D)), exactly. So the objective of tuning, cross-entropy over the
candidates' mean log-probabilities, is minimised itself, with the base's logits as its offset and a ridge on the change:
the base is where an infinite ridge leads. scikit-learn's regression takes no offset, so its ridge leads to equal odds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

RIDGES = (30000.0, 10000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1)
FOLDS = 10


@dataclass(frozen=True)
class FrozenFeatures:
    """N examples of the same C candidates, under the base; all float64.

    Args:
        hidden: (N, H) what the output embedding reads where the first token of a candidate is scored.
        first: (N, C) log-probability of each candidate's first token.
        rest: (N, C) of its other tokens, added up.
        right: (N, C) which candidates are right.
        lengths: (C,) tokens of each candidate.
        scale: (H,) what each feature is divided by where a ridge weighs it; None: by its own size.
    """

    hidden: torch.Tensor
    first: torch.Tensor
    rest: torch.Tensor
    right: torch.Tensor
    lengths: torch.Tensor
    scale: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    @classmethod
    def joined(cls, parts: Sequence["FrozenFeatures"]) -> "FrozenFeatures":
        """The examples of all parts, one after another."""
        names = ("hidden", "first", "rest", "right")
        return replace(parts[0], **{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

    def at(self, rows: torch.Tensor) -> "FrozenFeatures":
        """Some of the examples."""
        of_examples = ("hidden", "first", "rest", "right")
        return replace(self, **{name: getattr(self, name)[rows] for name in of_examples})

    def scores(self, change: torch.Tensor | None = None) -> torch.Tensor:
        """(N, C) mean log-probability of each candidate's tokens, with rows changed by (C, H)."""
        first = self.first if change is None else self.moved(change).first
        return (first + self.rest) / self.lengths

    def moved(self, change: torch.Tensor) -> "FrozenFeatures":
        """The examples under a base whose rows are changed by (C, H)."""
        moved = self.first + self.hidden @ change.T
        others = torch.log1p(-self.first.exp().sum(1).clamp(max=1 - 1e-12))
        return replace(self, first=moved - torch.logaddexp(others, moved.logsumexp(1)).unsqueeze(1))

    def losses(self, change: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) candidate-ce of each example."""
        scores = self.scores(change)
        return scores.logsumexp(1) - scores.masked_fill(~self.right, -torch.inf).logsumexp(1)

    def hits(self, change: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) whether the best candidate is a right one, 0 or 1."""
        best = self.scores(change).argmax(1, keepdim=True)
        return self.right.gather(1, best).squeeze(1).double()


@dataclass(frozen=True)
class RowFit:
    """The change of the rows, and what it does to examples that it was not fitted to.

    Args:
        change: (C, H) float64; None where the base's own rows are better.
        ridge: that was chosen by cross-validation; inf for the base.
        losses, accuracies: (base, fitted), means over the examples, each under the fit without its fold.
        folds: of each, its examples, and the change that was fitted without them.
        held_out: (N,) the losses that `losses` has the mean of.
    """

    change: torch.Tensor | None
    ridge: float
    losses: tuple[float, float]
    accuracies: tuple[float, float]
    folds: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    held_out: torch.Tensor | None = None


def fit_rows(known: FrozenFeatures) -> RowFit:
    """Fit the rows; of the ridges, and the base, the one with the least loss over the held-out folds.

    From the largest ridge on, each fit from the one before, until the loss rose twice. On one thread: products this
    small are slower on more, and their bits would depend on how many there are.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fitted(known)
    finally:
        torch.set_num_threads(threads)


def _fitted(known: FrozenFeatures) -> RowFit:
    order = torch.arange(len(known))  # in the run's order, which is random
    folds = [order[fold::FOLDS] for fold in range(min(FOLDS, len(known)))]
    parts = [known.at(order[~torch.isin(order, out)]) for out in folds]
    changes = [_none(known)] * len(folds)
    base = float(known.losses().mean()), float(known.hits().mean())
    best, found, apart, lost = -1, base, changes, known.losses()
    for n, ridge in enumerate(RIDGES):
        losses, hits = torch.zeros(len(known)).double(), torch.zeros(len(known)).double()
        for fold, out in enumerate(folds):
            changes[fold] = minimised(parts[fold], changes[fold], ridge)
            held_out = known.at(out)
            losses[out], hits[out] = held_out.losses(changes[fold]), held_out.hits(changes[fold])
        if float(losses.mean()) < found[0]:
            best, found = n, (float(losses.mean()), float(hits.mean()))
            apart, lost = list(changes), losses
        elif 0 <= best <= n - 2:
            break
    if best < 0:
        return RowFit(None, float("inf"), (base[0], base[0]), (base[1], base[1]), held_out=lost)
    change = _none(known)
    for ridge in RIDGES[: best + 1]:
        change = minimised(known, change, ridge)
    each = tuple(zip(folds, apart, strict=True))
    return RowFit(change, RIDGES[best], (base[0], found[0]), (base[1], found[1]), each, lost)


def _none(known: FrozenFeatures) -> torch.Tensor:
    return torch.zeros(known.first.shape[1], known.hidden.shape[1], dtype=torch.float64)


def minimised(known: FrozenFeatures, start: torch.Tensor, ridge: float) -> torch.Tensor:
    """(C, H) the change with the least mean loss plus ridge / 2N of its squares, each times its feature's mean square.

    start: where to look from.
    """
    # features of equal size, as a ridge wants them
    scale = known.hidden.square().mean(0).sqrt().clamp(min=1e-12) if known.scale is None else known.scale
    scaled = replace(known, hidden=known.hidden / scale)
    change = (start * scale).requires_grad_(True)
    steps = torch.optim.LBFGS([change], max_iter=200, tolerance_grad=1e-6, line_search_fn="strong_wolfe")

    def loss() -> Any:
        steps.zero_grad()
        value = scaled.losses(change).mean() + ridge / (2 * len(known)) * change.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        steps.step(loss)
    return change.detach() / scale
