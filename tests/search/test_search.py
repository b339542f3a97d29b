"""`mezo tune`: the better half of every rung goes on, finished trials are kept, the best is found."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.baselines import toy

from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.search import Trial, halving, tune
from mezo.search.space import (
    EPSILONS,
    LEARNING_RATES,
    SearchedSetting,
    grid,
    plan_by_minutes,
    plan_by_steps,
    rung_sizes,
)
from mezo.search.trial import search_data, trial_config
from mezo.search.trials import SearchFolder

POSITIVE = st.floats(1e-12, 1e6)
SETTINGS = st.integers(2, 20).map(lambda n: tuple(SearchedSetting(10.0**-k, 1e-3) for k in range(n)))


class Notes(Observer):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_note(self, text: str) -> None:
        self.texts.append(text)


# ---------------------------------------------------------------- the plan


@given(st.integers(2, 10_000))
def test_rungs_are_halves_down_to_two(settings: int) -> None:
    sizes = rung_sizes(settings)
    assert sizes[0] == settings
    assert sizes[-1] == 2
    assert all(after == math.ceil(before / 2) for before, after in zip(sizes, sizes[1:], strict=False))


@given(SETTINGS, st.integers(64, 10_000))
def test_steps_double_from_rung_to_rung(settings: tuple[SearchedSetting, ...], steps: int) -> None:
    plan = plan_by_steps(settings, steps)
    assert plan.rungs[-1] == steps
    assert all(before == after // 2 for before, after in zip(plan.rungs, plan.rungs[1:], strict=False))
    assert len(plan.rungs) == len(plan.sizes)


@given(SETTINGS, POSITIVE, st.floats(1e-3, 10), st.floats(0, 100))
def test_the_longest_trials_that_fit_the_minutes(
    settings: tuple[SearchedSetting, ...], minutes: float, per_step: float, per_trial: float
) -> None:
    try:
        plan = plan_by_minutes(settings, minutes, per_step, per_trial)
    except MezoError as error:
        shortest = plan_by_steps(settings, 4 << (len(rung_sizes(len(settings))) - 1))
        assert shortest.seconds(per_step, per_trial) > 60 * minutes
        assert "take at least" in str(error)  # noqa: PT017
    else:
        assert plan.seconds(per_step, per_trial) <= 60 * minutes


def test_the_default_grid_holds_the_papers_values() -> None:
    for tuning in ("full", "lora", "prefix"):
        rates = {s.learning_rate for s in grid(tuning)}
        for family in ("opt", "roberta"):
            paper = MeZOConfig.paper(family, tuning)
            assert min(rates) <= paper.peak_rate <= max(rates)
            assert paper.epsilon in {s.epsilon for s in grid(tuning)}
        assert len(grid(tuning)) == len(LEARNING_RATES[tuning]) * len(EPSILONS[tuning]) == 12


@pytest.mark.parametrize(
    ("rates", "epsilons", "message"),
    [
        ([1e-3], [1e-3], "at least 2 settings.*learning rate 0.001 and epsilon 0.001 alone"),
        ([0.0, 1.0], None, "learning rates above 0, found 0, 1"),
        ([1.0], [math.nan], "epsilons above 0, found nan"),
    ],
)
def test_a_grid_that_is_none_is_refused(rates: list[float], epsilons: Any, message: str) -> None:
    with pytest.raises(MezoError, match=message):
        grid("full", rates, epsilons)


def test_too_few_steps_are_refused() -> None:
    with pytest.raises(MezoError, match=r"12 settings are halved 3 times.*leaves 1.*at least 32 steps"):
        plan_by_steps(grid("full"), 8)


# ---------------------------------------------------------------- the folder

TRIALS = st.builds(
    Trial,
    rung=st.integers(0, 9),
    steps=st.integers(1, 10**6),
    learning_rate=POSITIVE,
    epsilon=POSITIVE,
    start=st.floats(0, 100) | st.just(math.nan),
    loss=st.floats(0, 100) | st.just(math.nan),
    score=st.none() | st.floats(0, 1),
    diverged=st.booleans(),
    too_large=st.booleans(),
    seconds=st.floats(0, 1e6),
    peak_memory_bytes=st.integers(0, 2**50),
)


@given(st.lists(TRIALS, max_size=4))
def test_trials_are_read_as_they_were_added(
    tmp_path_factory: pytest.TempPathFactory, trials: list[Trial]
) -> None:
    folder = SearchFolder(tmp_path_factory.mktemp("search"))
    for trial in trials:
        folder.add(trial)
    assert repr(SearchFolder(folder.path).trials()) == repr(trials)  # repr: NaN is not equal to itself


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"rung": 0}', '{"start": 1, "loss": "x"}'])
def test_a_line_that_is_no_trial_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "trials.jsonl").write_text(line + "\n")
    with pytest.raises(MezoError, match=r"trials\.jsonl:1: expected a trial"):
        SearchFolder(tmp_path).trials()


# ---------------------------------------------------------------- the search


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.reviews(tmp_path_factory.mktemp("data") / "reviews")


@pytest.mark.slow
def test_it_finds_the_planted_best_and_marks_what_diverged(base: Path, data: Path, tmp_path: Path) -> None:
    """1e-9 does not move, 1e9 blows up: of these three there is one that tunes."""
    config, notes = toy.config(base, data, schedule="linear", num_steps=500), Notes()
    found = tune(
        config,
        output=tmp_path / "s",
        learning_rates=[1e-9, 1e-3, 1e9],
        epsilons=[1e-3],
        steps=60,
        observer=notes,
    )
    assert found.best == SearchedSetting(1e-3, 1e-3)
    by_rate = {t.learning_rate: t for t in found.trials if t.rung == 0}
    assert by_rate[1e9].diverged
    assert not by_rate[1e-3].diverged
    assert not by_rate[1e-3].too_large
    assert abs(by_rate[1e-9].loss - by_rate[1e-9].start) < 1e-4
    assert by_rate[1e-3].loss < by_rate[1e-9].loss
    assert [t.steps for t in found.trials] == [30, 30, 30, 60, 60]
    assert found.ranking[0] == found.best
    assert found.advice is None
    assert notes.texts[0].startswith("3 settings; trials: 3 of 30 steps, 2 of 60 steps; 210 steps, about ")
    assert MeZOConfig.load(found.path) == config.model_copy(update={"learning_rate": 1e-3, "epsilon": 1e-3})


@pytest.mark.slow
def test_all_trials_see_the_same(base: Path, data: Path) -> None:
    """Only what is searched differs, and what has to follow the number of steps."""
    config = toy.config(base, data, warmup_steps=50, num_steps=500, schedule="cosine", eval_every=100)
    trial = trial_config(config, SearchedSetting(1e-2, 1e-1), 20)
    changed = {k for k, v in trial.model_dump().items() if v != config.model_dump()[k]}
    assert changed == {"learning_rate", "epsilon", "num_steps", "warmup_steps", "eval_every"}
    assert (trial.warmup_steps, trial.seed) == (2, config.seed)


def counted(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[SearchedSetting]:
    """Settings of the trials that are run from here on; Ctrl-C in the one after `stop_after`."""
    ran: list[SearchedSetting] = []
    original: Callable[..., Trial] = halving.run_trial

    def run_trial(config: Any, train: Any, validation: Any, setting: SearchedSetting, *rest: int) -> Trial:
        if stop_after is not None and len(ran) == stop_after:
            raise KeyboardInterrupt
        ran.append(setting)
        return original(config, train, validation, setting, *rest)

    monkeypatch.setattr(halving, "run_trial", run_trial)
    return ran


@pytest.mark.slow
def test_it_goes_on_where_it_was_stopped(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(output: Path, notes: Observer | None = None) -> halving.SearchResult:
        rates = [1e-4, 3e-4, 1e-3]
        return tune(
            toy.config(base, data),
            output=output,
            learning_rates=rates,
            epsilons=[1e-3],
            steps=8,
            observer=notes,
        )

    with monkeypatch.context() as patch:
        ran = counted(patch, stop_after=2)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "stopped")
        assert len(ran) == len((tmp_path / "stopped" / "trials.jsonl").read_text().splitlines()) == 2
    with monkeypatch.context() as patch:
        ran, notes = counted(patch), Notes()
        found = search(tmp_path / "stopped", notes)
        assert len(ran) == 3 + 2 - 2
        assert notes.texts[0].startswith("going on with the search")
    with monkeypatch.context() as patch:
        ran = counted(patch)
        again = search(tmp_path / "stopped")
        assert ran == []
        assert repr(again) == repr(found)
    whole = search(tmp_path / "whole")
    assert whole.best == found.best
    assert [t.loss for t in whole.trials] == [t.loss for t in found.trials]


@pytest.mark.slow
def test_a_search_with_other_settings_is_not_mixed_in(base: Path, data: Path, tmp_path: Path) -> None:
    folder, config = tmp_path / "s", toy.config(base, data)
    arguments: dict[str, Any] = dict(output=folder, learning_rates=[1e-4, 1e-3], epsilons=[1e-3], steps=8)
    tune(config, **arguments)
    with pytest.raises(
        MezoError, match=r"holds a search with other settings \(batch_size: 4 there, 8 here\)"
    ):
        tune(config.model_copy(update={"batch_size": 8}), **arguments)
    with pytest.raises(MezoError, match=r"steps: 8 there, 16 here"):
        tune(config, **{**arguments, "steps": 16})
    with pytest.raises(MezoError, match=r"settings: .* there, .* here"):
        tune(config, **{**arguments, "epsilons": [1e-2]})
    # the search sets these itself, so they do not matter to it
    tune(config.model_copy(update={"learning_rate": 1.0, "epsilon": 1.0}), **arguments)
    asked = yaml.safe_load((folder / "search.yaml").read_text())
    assert asked["rungs"] == [8]


@pytest.mark.slow
def test_when_all_diverge_it_says_so(base: Path, data: Path, tmp_path: Path) -> None:
    config = toy.config(base, data)
    with pytest.raises(MezoError, match=r"all 2 settings diverged within 8 steps.*--learning-rates 1e\+08"):
        tune(config, output=tmp_path / "s", learning_rates=[1e9, 1e10], epsilons=[1e-3], steps=8)
    assert not (tmp_path / "s" / "best.yaml").exists()
    lines = (tmp_path / "s" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line)["diverged"] for line in lines] == [True, True]


@pytest.mark.slow
def test_a_best_at_the_end_of_the_grid_is_pointed_out(base: Path, data: Path, tmp_path: Path) -> None:
    found = tune(
        toy.config(base, data), output=tmp_path / "s", learning_rates=[1e-9, 1e-3], epsilons=[1e-3], steps=60
    )
    assert found.advice is not None
    assert found.advice.startswith("0.001 is the largest learning rate that was tried")


@pytest.mark.slow
def test_minutes_make_the_steps(base: Path, data: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = dict(output=tmp_path / "s", learning_rates=[1e-4, 1e-3], epsilons=[1e-3])
    with pytest.raises(MezoError, match=r"2 settings take at least .* minutes here, found minutes=1e-06"):
        tune(toy.config(base, data), minutes=1e-6, **arguments)
    with pytest.raises(MezoError, match=r"exclude each other"):
        tune(toy.config(base, data), minutes=1, steps=8, **arguments)


def test_data_without_a_validation_split_give_up_a_fifth(base: Path, data: Path) -> None:
    train, validation = search_data(toy.config(base, data / "train.jsonl"))
    assert (len(train), len(validation)) == (20, 4)
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    assert sorted((*train, *validation), key=lambda r: r["sentence"]) == sorted(
        rows, key=lambda r: r["sentence"]
    )


def test_a_folder_with_a_validation_split_keeps_it(base: Path, data: Path) -> None:
    train, validation = search_data(toy.config(base, data))
    assert (len(train), len(validation)) == (24, 16)
    assert len(search_data(toy.config(base, data, eval_examples=5))[1]) == 5
