"""What watches a run speaks when it should, once, and not of a run that is well."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezo.config import MeZOConfig
from mezo.events import StepRecord
from mezo.objectives import OBJECTIVES, objective_named
from mezo.scoring import Example
from mezo.training.monitors import ExplodingLoss, Watch
from mezo.training.monitors.explosion import FACTOR, WINDOW, Explosion, guessing
from mezo.training.monitors.no_movement import Stillness
from mezo.training.monitors.plateau import Plateau

LN2 = math.log(2)


def records(losses: Sequence[float] | np.ndarray, grads: Sequence[float] | None = None) -> list[StepRecord]:
    slopes = grads if grads is not None else [0.01] * len(losses)
    return [
        StepRecord(i, float(x), 1e-4, (g,), 0.1, 10)
        for i, (x, g) in enumerate(zip(losses, slopes, strict=True))
    ]


def exploded_at(losses: Sequence[float] | np.ndarray, guess: float = LN2, examples: int = 16) -> int | None:
    watch = Explosion(guess, examples)
    return next((r.step for r in records(losses) if watch.seen(r)), None)


# ---------------------------------------------------------------- explosion


def test_a_loss_that_stays_far_above_its_beginning_and_guessing_has_exploded() -> None:
    losses = [0.6] * 200 + [5.0] * 100
    # the median of 50, the mean of the middle two, is above 3 * 0.6 once 25 of them are: (0.6 + 5) / 2 > 1.8
    assert exploded_at(losses) == 200 + WINDOW // 2 - 1


def test_wild_batches_are_not_an_explosion() -> None:
    losses = [0.6 if i % 50 < 26 else 1e6 for i in range(500)]
    assert exploded_at(losses) is None


def test_a_loss_that_began_near_zero_may_rise_to_guessing() -> None:
    assert exploded_at([1e-4] * 100 + [0.99 * LN2] * 200) is None
    assert exploded_at([1e-4] * 100 + [1.01 * LN2] * 200) is not None


def test_a_loss_that_began_above_guessing_is_measured_by_its_beginning() -> None:
    assert exploded_at([2.0] * 100 + [0.99 * FACTOR * 2.0] * 200) is None
    assert exploded_at([2.0] * 100 + [1.01 * FACTOR * 2.0] * 200) is not None


@given(
    level=st.floats(1e-3, 10),
    end=st.floats(0, 2),
    spread=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
    examples=st.sampled_from([1, 4, 16, 64]),
)
@settings(max_examples=60, deadline=None)
def test_noise_around_a_line_is_not_an_explosion(
    level: float, end: float, spread: float, seed: int, examples: int
) -> None:
    """A loss that ends at up to twice what it began with; its batches spread as wide as the mean of so many
    exponential losses, and all of a step's noise by `spread`."""
    rng = np.random.default_rng(seed)
    line = level * np.linspace(1, end, 400)
    noise = 1 + spread * (rng.gamma(examples, 1 / examples, 400) - 1)
    assert exploded_at(line * noise, guess=1e-9, examples=examples) is None


def example(candidates: int, right: tuple[int, ...] = ()) -> Example:
    return Example((1, 2), tuple((3 + i,) for i in range(candidates)), 0, answers=right)


def test_guessing_costs_what_a_model_pays_that_knows_nothing() -> None:
    """The objective itself, of equal log-probabilities."""
    from mezo.scoring import pose

    examples = [example(2), example(3), example(4, (0, 1))]
    vocabulary = 300
    for name in ("candidate-ce", "answer-ce"):
        objective = OBJECTIVES[name]
        posed = pose(examples, answers_only=objective.answers_only)
        paid = objective(posed, np.full(len(posed.query_row), -math.log(vocabulary)))
        # both are sums of a few logarithms in float64
        assert guessing(objective, examples, vocabulary) == pytest.approx(paid, rel=1e-12)


@pytest.mark.parametrize("name", ["accuracy", "f1", "rouge"])
def test_objectives_without_such_a_loss_are_not_watched(name: str) -> None:
    assert guessing(objective_named(name), [example(2)], 300) is None


# ---------------------------------------------------------------- nothing moves


def still(grads: Sequence[float], objective: str = "accuracy", **changes: Any) -> list[str]:
    watch = Stillness(MeZOConfig.build(**changes), objective)
    return [t for t in map(watch.seen, records([0.5] * len(grads), grads)) if t]


def test_a_run_that_never_moved_is_told_soon_and_once() -> None:
    (text,) = still([0.0] * 1000)
    assert "50 of the last 50 steps changed nothing" in text
    assert "accuracy moves in jumps: try --epsilon 0.002" in text


def test_a_run_that_hardly_moves_is_told_once_and_one_that_does_is_not() -> None:
    (text,) = still([1.0, *[0.0] * 19] * 50)
    assert "190 of the last 200" in text
    assert still([1.0, *[0.0] * 9] * 100) == []  # nine in ten, and no more


def test_a_run_that_moves_no_more_is_told() -> None:
    (text,) = still([1.0] * 30 + [0.0] * 300, "candidate-ce")
    assert "100 of the last 100 steps changed nothing" in text
    assert "driven to where the loss no longer depends on them" in text


def test_the_advice_fits_the_cause() -> None:
    assert "lost in the rounding of bfloat16" in still([0.0] * 50, "candidate-ce", dtype="bfloat16")[0]
    assert "too small to be seen" in still([0.0] * 50, "candidate-ce")[0]
    assert "module:function moves in jumps" in still([0.0] * 50, "module:function")[0]


# ---------------------------------------------------------------- no better


def plateaus(losses: np.ndarray, first_step: int = 0, **changes: Any) -> list[str]:
    config = MeZOConfig.build(**{"num_steps": len(losses), **changes})
    watch = Plateau(config, first_step)
    return [t for t in map(watch.seen, records(losses)) if t]


@given(
    steps=st.integers(2500, 8000),
    level=st.floats(0.1, 10),
    spread=st.floats(1e-3, 1),
    errors=st.floats(8, 100),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None)
def test_noise_around_a_falling_line_is_no_plateau(
    steps: int, level: float, spread: float, errors: float, seed: int
) -> None:
    """A line that falls, from one window to the next, by `errors` standard errors of their difference.

    At 8 a look is wrong with the chance of a normal variable below -7 (1e-12), and a run has 17 looks at most.
    """
    window = Plateau(MeZOConfig.build(num_steps=steps)).window
    noise = spread * level * np.random.default_rng(seed).standard_normal(steps)
    slope = errors * spread * level * math.sqrt(2 / window) / window
    assert plateaus(level - slope * np.arange(steps) + noise) == []


def test_a_flat_loss_is_told_once_with_its_numbers() -> None:
    noise = np.random.default_rng(0).standard_normal(20_000)
    (text,) = plateaus(0.5 + 0.1 * noise)
    assert re.search(r"gets no better: 0\.(49|50)\d*  *over the last 2,000 steps", text)


def test_a_rising_loss_is_no_better_either() -> None:
    assert len(plateaus(np.linspace(0.5, 0.6, 6000))) == 1


def test_short_runs_and_their_ends_and_warm_ups_are_left_alone() -> None:
    flat = np.full(20_000, 0.5)
    assert plateaus(flat[:2999]) == []  # two windows of 1,000, and one that is left
    falling = np.concatenate([np.linspace(1, 0.5, 18_000), flat[:2000]])
    assert plateaus(falling) == []
    assert plateaus(np.concatenate([flat[:9000], np.linspace(0.5, 0, 6000)]), warmup_steps=9000) == []


# ---------------------------------------------------------------- together


def watch(first: int = 0, **changes: Any) -> Watch:
    config = MeZOConfig.build(**{"num_steps": 6000, **changes})
    return Watch(config, "candidate-ce", slopes=True, explosion=Explosion(LN2, 16), run=None)


@pytest.mark.parametrize("cut", [0, 1, 49, 120, 2049, 2100, 3999])
def test_a_resumed_watch_is_that_of_a_run_never_left(cut: int) -> None:
    rng = np.random.default_rng(1)
    losses = 0.6 + 0.05 * rng.standard_normal(4000)
    grads = [0.0 if i % 30 else 0.1 for i in range(4000)]
    done, said = records(losses, grads), []
    whole, resumed = watch(), watch()
    for record in done:
        whole.step(record, said.append)
    resumed.take_in(done[:cut], 0)
    again: list[str] = []
    for record in done[cut:]:
        resumed.step(record, again.append)
    assert resumed.notices == whole.notices
    assert {n.kind for n in whole.notices} == {"zero-gradients", "plateau"}
    assert again == [n.text for n in whole.notices if n.step > cut]
    assert said == [n.text for n in whole.notices]


def test_an_explosion_stops_the_run_and_its_resumption_unless_it_is_turned_off() -> None:
    done = records([0.6] * 100 + [0.4] * 100 + [9.0] * 100)
    stopped = watch()
    for record in done[:224]:
        stopped.step(record, lambda text: None)
    with pytest.raises(ExplodingLoss) as caught:
        stopped.step(done[224], lambda text: None)
    text = str(caught.value)
    assert text.startswith(
        "step 225: the loss has exploded: its median over the last 50 steps is 4.7; it began at 0.6"
    )
    # the first 50 whose median is 0.4 have 26 steps of it, as have none before: steps 76 to 125, of which this is the middle
    assert "cut RUN --steps 101 --output" in text
    assert "--no-stop-on-explosion" in text
    with pytest.raises(ExplodingLoss):
        watch().take_in(done[:225], 0)
    free = watch(stop_on_explosion=False)
    free.take_in(done[:225], 0)
    for record in done[225:]:
        free.step(record, lambda text: None)


def test_after_a_measured_rate_a_third_of_the_highest_is_advised() -> None:
    """Once the slopes are those of a wrecked model, what is measured falls to nothing."""
    done = records([0.6] * 100 + [9.0] * 25)
    rates = [3e-3 if record.step < 100 else 1e-7 for record in done]
    with pytest.raises(ExplodingLoss, match=r"\(--learning-rate 0\.001\)"):
        watch(learning_rate="auto").take_in(
            [replace(r, learning_rate=rate) for r, rate in zip(done, rates, strict=True)], 0
        )


@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_the_way_back_leads_to_before_the_rise(steady: int, seed: int) -> None:
    """Wherever noise puts the lowest median: up to 24 of its 50 steps may be after the rise, and are all above it."""
    rng = np.random.default_rng(seed)
    low = WINDOW + steady
    found = Explosion(LN2, 16)
    for record in records(np.concatenate([0.5 + 0.1 * rng.standard_normal(low), np.full(60, 30.0)])):
        found.seen(record)
    assert 0 < found.best_steps <= low


def test_a_run_that_explodes_is_given_one_advice() -> None:
    """At large slopes the size of the steps is noticed at the same step."""
    done = records([0.6] * 10 + [90.0] * 40, grads=[3000.0] * 50)
    said: list[str] = []
    free = watch(stop_on_explosion=False)
    for record in done:
        free.step(record, said.append)
    assert len(said) == 1
    assert "the steps are too large" in said[0]
    stopped = watch()
    for record in done[:-1]:
        stopped.step(record, said.append)
    with pytest.raises(ExplodingLoss):
        stopped.step(done[-1], said.append)
    assert len(said) == 1


def test_a_fork_is_measured_by_its_own_beginning() -> None:
    forked = watch()
    forked.take_in([], 300)
    for record in records([9.0] * 300):
        forked.step(record, lambda text: None)
