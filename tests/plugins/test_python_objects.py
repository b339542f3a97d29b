"""Classes, functions and objects in place of names: recorded as what finds them again, or refused."""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.resumed import ROWS, base

import mezo
from mezo.cli.options import _parsed
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.estimators import TwoPoint, build
from mezo.metrics import METRICS, ChoiceMetric, metric_named
from mezo.objectives import AnswerCrossEntropy
from mezo.optimizers import SGD, Momentum
from mezo.resume.compatibility import Changed, check_plugins
from mezo.runs import trajectory
from mezo.tasks import TASKS
from mezo.tuning import lora
from mezo.util import plugins
from mezo.util.plugin_names import named

HERE = __name__


@dataclass(frozen=True)
class Shrunk(TwoPoint):
    share: float = 1.0
    names: tuple[str, ...] = ()
    hook: Any = field(default=None)


class Plain(SGD):
    def __init__(self, weight_decay: float = 0.0, rounding: Any = "matched", every: int = 1) -> None:
        super().__init__(weight_decay, rounding)
        object.__setattr__(self, "every", every)


def reward(example: dict[str, Any], output: str) -> float:
    return float(len(output))


@dataclass(frozen=True)
class Share(ChoiceMetric):
    """A metric as a class with settings."""

    name: str = "share"
    of: Any = None
    k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", lambda examples, choices: 1 / self.k)


WRONG = ChoiceMetric("wrong", lambda examples, choices: 0.5)


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("estimator", TwoPoint, "two-point"),
        ("estimator", Shrunk, f"{HERE}:Shrunk"),
        ("estimator", Shrunk(), f"{HERE}:Shrunk"),
        ("estimator", Shrunk(share=0.5, names=("a",)), f"{HERE}:Shrunk(share=0.5, names=('a',))"),
        ("optimizer", Momentum, "momentum"),
        ("objective", AnswerCrossEntropy(), "answer-ce"),
        ("objective", reward, f"{HERE}:reward"),
        ("task", TASKS["sst2"], "sst2"),
        ("task", replace(TASKS["sst2"], append_eos=True), "mezo.tasks.sst2:SST2(append_eos=True)"),
        ("tuning", lora, "lora"),
    ],
)  # fmt: skip
def test_it_is_recorded_by_name(setting: str, value: Any, name: str) -> None:
    config = MeZOConfig.build(**{setting: value})
    assert getattr(config, setting) == name
    if ":" in name:
        assert plugins.load(setting, name).found is (
            type(value) if "(" in name or value == Shrunk() else value
        )


def test_metrics_are_given_together() -> None:
    assert MeZOConfig.build(metrics=[WRONG, "accuracy"]).metrics == (f"{HERE}:WRONG", "accuracy")
    assert MeZOConfig.build(metrics=METRICS["macro-f1"]).metrics == ("macro-f1",)


def test_settings_of_an_object_that_the_run_has_are_the_run_s() -> None:
    assert MeZOConfig.build(optimizer=Momentum(beta1=0.5)).beta1 == 0.5
    config = MeZOConfig.build(estimator=Shrunk(epsilon=0.25, share=0.5))
    assert (config.estimator, config.epsilon) == (f"{HERE}:Shrunk(share=0.5)", 0.25)
    assert build(config, None) == Shrunk(epsilon=0.25, share=0.5)  # type: ignore[arg-type]
    assert MeZOConfig.build(estimator=TwoPoint(epsilon=0.25), epsilon=0.25).epsilon == 0.25
    with pytest.raises(
        MezoError, match=r"epsilon=0.5: estimator=TwoPoint\(epsilon=0.25\) has epsilon=0.25: give one"
    ):
        MeZOConfig.build(estimator=TwoPoint(epsilon=0.25), epsilon=0.5)
    with pytest.raises(MezoError, match="epsilon is a setting of the run"):
        MeZOConfig.build(estimator=f"{HERE}:Shrunk(epsilon=0.5)")


def inner() -> Any:
    @dataclass(frozen=True)
    class Hidden(TwoPoint):
        pass

    return Hidden


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("estimator", inner(), "made inside of a function"),
        ("estimator", inner()(), "made inside of a function"),
        ("objective", lambda example, output: 1.0, "made inside of a function"),
        ("estimator", Shrunk(hook=reward), "its hook is no number"),
        ("estimator", Shrunk(share=float("nan")), "its share is no number"),
        ("metrics", ChoiceMetric("mine", lambda examples, choices: 0.0), "its of is no number"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_again_is_refused_in_a_line(setting: str, value: Any, why: str) -> None:
    with pytest.raises(MezoError, match=why) as caught:
        MeZOConfig.build(**{setting: value})
    assert "put it into a file of its own" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_object_that_is_no_dataclass() -> None:
    assert named("optimizer", Plain(every=3)) == (f"{HERE}:Plain(every=3)", {})


def test_a_class_of_the_program_that_runs_is_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import runpy

    (tmp_path / "program.py").write_text(
        "import mezo\nfrom mezo.estimators import TwoPoint\n"
        "class Own(TwoPoint):\n    pass\n"
        "name = mezo.MeZOConfig.build(estimator=Own).estimator\n"
    )
    monkeypatch.chdir(tmp_path)
    assert runpy.run_path("program.py", run_name="__main__")["name"] == "program.py:Own"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{HERE}:Shrunk(sahre=0.5)", "has no setting 'sahre'; did you mean 'share'"),
        (f"{HERE}:Shrunk(share=open('x'))", "expected NAME.setting=value"),
        (f"{HERE}:Shrunk(share=1)(2)", "expected NAME.setting=value"),
        (f"{HERE}:Shrunk(", "expected NAME.setting=value"),
        (f"{HERE}:reward", "expected a mezo.estimators.base.Estimator, found <function"),
        (f"{HERE}:Plain", "expected a mezo.estimators.base.Estimator, found <class"),
        ("os:system", "expected a mezo.estimators.base.Estimator, found <built-in function system>"),
        ("two-pont(share=1)", "unknown estimator 'two-pont"),
    ],
)  # fmt: skip
def test_a_name_that_is_none(name: str, message: str) -> None:
    with pytest.raises(MezoError, match=message):
        build(MeZOConfig.build(estimator=name), None)  # type: ignore[arg-type]


def test_finetune_takes_objects(tmp_path: Path) -> None:
    rows = [{"prompt": row["sentence"], "completion": " great"} for row in ROWS]
    result = mezo.mezo_finetune(
        str(base(tmp_path / "base")), rows, lora_rank=0, num_steps=2, batch_size=2, output=tmp_path / "run",
        estimator=Shrunk(share=0.5), optimizer=Momentum(beta1=0.5), objective=reward, max_new_tokens=2,
    )  # fmt: skip
    assert (result.config.optimizer, result.config.beta1) == ("momentum", 0.5)
    header = trajectory.read(tmp_path / "run" / "trajectory.mezo").header
    assert header["plugins"].keys() == {f"estimator {HERE}:Shrunk", f"objective {HERE}:reward"}


def test_the_source_of_what_a_class_is_derived_from_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = "import importlib\nfrom pathlib import Path\nclass Own(importlib.import_module(Path('which').read_text()).Base):\n    pass\n"
    (tmp_path / "own.py").write_text(own)
    monkeypatch.syspath_prepend(str(tmp_path))
    MeZOConfig.build(estimator="own.py:Own")
    digests = set()
    for number in range(2):
        text = f"from mezo.estimators import TwoPoint\nclass Base(TwoPoint):\n    x = {number}\n"
        (tmp_path / f"base_{number}_of_this_test.py").write_text(text)
        (tmp_path / "which").write_text(f"base_{number}_of_this_test")
        for name in [name for name in sys.modules if name.startswith("mezo_plugin_")]:
            monkeypatch.delitem(sys.modules, name)  # as in another process
        digests.add(plugins.load("estimator", "own.py:Own").digest)
    assert len(digests) == 2


def test_a_metric_may_be_a_class_with_settings() -> None:
    name = f"{HERE}:Share(k=4)"
    plugins.trust("metrics", name)
    found = metric_named(name)
    assert isinstance(found, ChoiceMetric)
    assert found.of([], []) == 0.25
    assert _parsed("metrics", f"{name}, accuracy") == (name, "accuracy")
    assert _parsed("metrics", "a:B(x=1,y=2),accuracy") == ("a:B(x=1,y=2)", "accuracy")
    plugins.trust("metrics", f"{HERE}:WRONG")
    with pytest.raises(MezoError, match="an object, which takes no settings"):
        metric_named(f"{HERE}:WRONG(k=1)")


def test_a_run_of_an_earlier_version_has_no_digest_to_compare(tmp_path: Path) -> None:
    settings = {"objective": f"{HERE}:reward"}
    plugins.trust("objective", settings["objective"])
    check_plugins(tmp_path, {}, settings)
    with pytest.raises(Changed, match="source of objective"):
        check_plugins(tmp_path, {"plugins": {}}, settings)
