"""Plans in prose become settings; what cannot be bound says why."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ablation.plans import PATHS, SAID, VALUES, plans
from tests.shared import shared

from mezo.ablation.binding.bind import bind
from mezo.ablation.binding.case import Bound
from mezo.ablation.binding.lexicon import expanded
from mezo.ablation.binding.metric_names import metric_names
from mezo.ablation.binding.part import parts
from mezo.ablation.binding.text import numbers
from mezo.ablation.formats.files import read_plan
from mezo.ablation.plans.plan import Plan
from mezo.cli.options import SETTINGS, panel_of
from mezo.config import METHOD, MeZOConfig

PHRASES = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text(encoding="utf-8"))

FRESH = yaml.safe_load((Path(__file__).parent / "fresh.yaml").read_text(encoding="utf-8"))

# Of each plan of the folder: variants that bind, and replacements that do not.
COUNTS = {
    "cache.yaml": (7, 1),
    "estimators.md": (8, 2),
    "memory.html": (5, 4),
    "mixed.jsonl": (6, 6),
    "mojibake.md": (3, 0),
    "noise.yaml": (9, 5),
    "objectives.jsonl": (7, 1),
    "optimizers.json": (12, 5),
    "precision.json": (9, 1),
    "prompts.md": (3, 1),
    "theory.jsonl": (7, 5),
    "tuning.yaml": (12, 1),
}


def bound(
    part: str, replacement: Any = None, action: str = "REPLACE", config: Any = None, **more: Any
) -> Bound:
    study = {"name": "s", "ablated_part": part, "action": action, "replacement": replacement, **more}
    return bind(Plan.build(studies=[study]), config or MeZOConfig())


def settings_of(found: Bound) -> list[dict[str, Any]]:
    return [variant.settings for variant in found.variants]


@pytest.mark.parametrize("row", PHRASES, ids=lambda row: row["part"][:40])
def test_phrases(row: dict[str, Any]) -> None:
    found = bound(row["part"], row["replacement"], row["action"])
    assert json.loads(json.dumps(settings_of(found))) == row["expect"]
    assert [item.text for item in found.unbound] == row.get("unbound", [])


@pytest.mark.parametrize("row", FRESH, ids=lambda row: row["text"])
def test_fresh_variants_are_what_they_say_or_are_refused(row: dict[str, Any]) -> None:
    found = bound(row["part"], [row["text"]], row["action"])
    expected = [] if row["says"] is None or row.get("refused") else [row["says"]]
    assert json.loads(json.dumps(settings_of(found))) == expected
    assert all(item.reason for item in found.unbound)


@pytest.mark.parametrize(
    ("part", "text", "reason"),
    [
        ("n of n-SPSA", "n=2 with a restart", "'restart' is not understood"),
        ("perturbation scale", "1e-2 (for biases)", "'for biases)' is not understood"),
        ("learning rate of the embeddings", "1e-5", "the part 'learning rate of the embeddings'"),
        ("random seed", "5 seeds", "'5 seeds' is not understood"),
        ("batch size", "16,128", "'16,128' is not understood"),
        ("optimizer", "Adam or momentum with n=4", "does not say which of them"),
        ("optimizer", "Adam with dropout", "models run without dropout"),
        ("perturbation scale", "1e-1 (10x larger)", "'10x larger)' is not understood"),
        ("learning rate", "n = 4", "says no value of the learning rate"),
    ],
)
def test_a_refusal_names_what_is_left_over(part: str, text: str, reason: str) -> None:
    (item,) = bound(part, [text]).unbound
    assert reason in item.reason


def test_a_study_with_something_unbound_gets_a_set_to_fill_in() -> None:
    found = bound("number of directions", ["n=4", "n=8 now and then"])
    lines = yaml.safe_load(found.stubs["s"])
    assert lines == {"set": [{"num_directions": 4}, {"num_directions": "..."}]}
    assert "# n=8 now and then" in found.stubs["s"]
    assert bound("number of directions", ["n=4"]).stubs == {}


@pytest.mark.parametrize(
    ("part", "replacement", "given", "reason"),
    [
        ("epsilon", ["1e-2"], [{"epsilon": 0.1}], "the words say epsilon=0.01, set: says epsilon=0.1: change one"),
        ("epsilon", ["1e-2"], {"epsilon": 0.1}, "the words say epsilon=0.01, set: says epsilon=0.1"),
        ("optimizer", ["Adam"], [{"learning_rate": 0.1}], "the words say optimizer=adam, set: says optimizer=sgd"),
        ("epsilon", [0.1, 0.2], {"epsilon": 0.1}, "the words say epsilon=0.2, set: says epsilon=0.1"),
    ],
)  # fmt: skip
def test_words_and_set_that_disagree_are_an_error(
    part: str, replacement: Any, given: Any, reason: str
) -> None:
    found = bound(part, replacement, set=given)
    (told,) = found.disagreements
    assert told.startswith(f"s, {replacement[-1]}: ")
    assert reason in told
    assert any(reason in item.reason for item in found.unbound)


def test_a_set_of_another_length_than_the_replacements_is_an_error() -> None:
    found = bound("epsilon", [0.1, 0.2, 0.3], set=[{"epsilon": 0.1}, {"epsilon": 0.2}])
    assert found.variants == ()
    assert found.disagreements == ["s, all of it: there are 3 replacements, and set: has 2 entries"]


def test_set_adds_to_words_that_agree_with_it() -> None:
    agreeing = bound("epsilon", ["1e-2"], set=[{"epsilon": 0.01, "num_directions": 2}])
    assert settings_of(agreeing) == [{"epsilon": 0.01, "num_directions": 2}]
    added = bound("optimizer", ["Adam"], set={"learning_rate": 0.1})
    assert settings_of(added) == [{"optimizer": "adam", "learning_rate": 0.1}]
    assert agreeing.disagreements == added.disagreements == []


def test_a_list_in_set_agrees_with_words_that_say_the_same() -> None:
    (words,) = bound("parameters that are tuned", ["attention only"]).variants
    given = {"train": list(words.settings["train"])}
    found = bound("parameters that are tuned", ["attention only"], set=[given])
    assert found.disagreements == []
    assert settings_of(found) == [given]


def test_a_null_in_set_leaves_a_variant_to_its_words() -> None:
    found = bound("epsilon", ["1e-2", "far"], set=[None, {"epsilon": 0.5}])
    assert settings_of(found) == [{"epsilon": 0.01}, {"epsilon": 0.5}]


def test_a_mapping_for_all_does_not_stand_for_words_that_are_not_understood() -> None:
    found = bound("optimizer", ["Adam", "the moon"], set={"learning_rate": 0.1})
    assert settings_of(found) == [{"optimizer": "adam", "learning_rate": 0.1}]
    assert [item.text for item in found.unbound] == ["the moon"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_plans_of_the_folder(path: Path) -> None:
    found = bind(read_plan(path), MeZOConfig())
    assert (len(found.variants), len(found.unbound)) == COUNTS[path.name]
    for item in found.unbound:
        assert item.reason
        assert item.nearest


def test_the_published_plan_binds_whole() -> None:
    found = bind(read_plan(shared("plans/example-plan-page.md")), MeZOConfig())
    assert found.unbound == ()
    assert settings_of(found) == [
        {"epsilon": 1e-3},
        {"epsilon": 1e-4},
        {"epsilon": 1e-5},
        {"num_directions": 2},
        {"num_directions": 4},
        {"estimator": "one-point"},
        {"memory": "regenerate", "granularity": "element"},
        {"memory": "regenerate", "granularity": "block"},
    ]
    assert [variant.config == MeZOConfig() for variant in found.variants] == [True] + [False] * 7
    wanted = ("accuracy", "f1", "rouge", "peak_memory_gb", "device_memory_gb", "device_hours")
    assert set(found.metrics.values()) == {wanted}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_any_plan_is_bound_or_told_why_not(plan: Plan) -> None:
    """Nothing is lost and nothing raised; what is bound is a config; labels are unique."""
    found = bind(plan, MeZOConfig())
    results = (*found.variants, *found.unbound)
    assert {result.study for result in results} == {study.name for study in plan.studies}
    for variant in found.variants:
        MeZOConfig.build(**{**MeZOConfig().model_dump(), **variant.settings})
    for study in plan.studies:
        labels = [v.label for v in found.variants if v.study == study.name]
        assert len(set(labels)) == len(labels)
        assert "baseline" not in labels


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    part=st.sampled_from([*(part.title for part in parts()), *MeZOConfig.model_fields]) | SAID,
    value=VALUES,
    action=st.sampled_from(["REMOVE", "REPLACE", "ADD"]),
)
def test_any_value_of_any_part(part: str, value: Any, action: str) -> None:
    for variant in bound(part, [value], action).variants:
        MeZOConfig.build(**{**MeZOConfig().model_dump(), **variant.settings})


def test_every_setting_of_the_method_is_of_a_part() -> None:
    held = {name for part in parts() for name in part.settings}
    assert held <= set(MeZOConfig.model_fields)
    assert {name for name in SETTINGS if panel_of(name) == METHOD} <= held


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.title)
def test_a_part_goes_by_its_own_title_and_settings(part: Any) -> None:
    from mezo.ablation.binding.lexicon import part_of

    assert part_of(part.title) is part
    assert all(part_of(name) is not None for name in part.settings)
    if isinstance(part.off, dict):
        MeZOConfig.build(**part.off)


# -------------------------------------------------------------------------------- rules of the binder


def test_what_equals_the_baseline_is_kept_and_said() -> None:
    found = bound("epsilon", [1e-3, 1e-2], config=MeZOConfig(epsilon=1e-2))
    assert [variant.config.epsilon for variant in found.variants] == [1e-3, 1e-2]


def test_settings_of_the_plan_go_before_its_words() -> None:
    one = bound("the walk", ["far", "near"], set=[{"epsilon": 0.1}, {"epsilon": 1e-5}])
    assert [(v.label, v.settings) for v in one.variants] == [
        ("far", {"epsilon": 0.1}),
        ("near", {"epsilon": 1e-5}),
    ]
    # a mapping goes to every variant, beside what its words set
    both = bound("estimator", ["one-sided", "one-point"], set={"learning_rate": 1e-5})
    assert [v.settings["estimator"] for v in both.variants] == ["one-sided", "one-point"]
    assert {v.settings["learning_rate"] for v in both.variants} == {1e-5}
    alone = bound("something of no name", action="REMOVE", set={"weight_decay": 0.5})
    assert settings_of(alone) == [{"weight_decay": 0.5}]
    named = bound("x", set=[{"epsilon": 0.1}, {"num_directions": 2}])
    assert [v.label for v in named.variants] == ["epsilon=0.1", "num_directions=2"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"epsilom": 0.1}, "unknown setting 'epsilom'; did you mean 'epsilon'"),
        ({"epsilon": -1}, "epsilon=-1"),
        ({"estimator": "three-point"}, "unknown estimator 'three-point'"),
        ({"estimator": "cone", "noise": "low-rank"}, "needs noise"),
        ({"granularity": "block", "memory": "store"}, "granularity='block'"),
        ({"objective": "acuracy"}, "unknown objective"),
        ({"trust_remote_code": True}, "a plan cannot set trust_remote_code"),
        ({"objective": "os:system"}, "a plan cannot have code run"),
        ({"task": "os.path:join"}, "a plan cannot have code run"),
        ({"server_args": {"trust_remote_code": True}}, "a plan cannot set server_args"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], told: str) -> None:
    (item,) = bound("epsilon", ["x"], set=[given]).unbound
    assert told in item.reason


def test_code_that_the_person_chose_is_no_plan_s_doing() -> None:
    config = MeZOConfig(objective="my_rewards:short")
    assert settings_of(bound("epsilon", [0.1], config=config)) == [{"epsilon": 0.1}]


def test_what_stands_in_the_way_of_a_change_goes_with_it() -> None:
    config = MeZOConfig(memory="regenerate", granularity="matrix")
    (variant,) = bound("memory", ["store"], config=config).variants
    assert variant.settings == {"memory": "store", "granularity": None}


def test_the_bare_prompt_is_that_of_the_task_and_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"], "num_hidden_layers": 4}')
    config = MeZOConfig(task="rte", model=str(tmp_path))
    assert settings_of(bound("prompt", action="REMOVE", config=config)) == [
        {"template": "{premise} {hypothesis} {mask}"}
    ]
    (variant,) = bound("layers that are tuned", ["the last 2 layers"], config=config).variants
    assert variant.settings == {"train": (r"\b(?:layers?|h|blocks?)\.(?:2|3)\.",)}
    (item,) = bound(
        "layers that are tuned", ["the last 2 layers"], config=MeZOConfig(model="org/name")
    ).unbound
    assert "not known" in item.reason


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("momentum 0.5", {"optimizer": "momentum", "beta1": 0.5}),
        ("weight decay 0.1", {"weight_decay": 0.1}),
        ("learning rate warmup of 100 steps", {"warmup_steps": 100}),
        ("4 directions", {"num_directions": 4}),
        ("gradient clipping at 1", None),
        ("number of directions 2, 4", None),
    ],
)
def test_a_number_in_the_name_of_what_is_added_is_not_lost(
    part: str, settings: dict[str, Any] | None
) -> None:
    assert settings_of(bound(part, action="ADD")) == ([] if settings is None else [settings])


def test_studies_without_a_word_on_how() -> None:
    assert settings_of(bound("momentum", action="ADD")) == [{"optimizer": "momentum"}]
    assert settings_of(bound("stochastic rounding", action="ADD")) == [{"rounding": "stochastic"}]
    for part in ("gradient clipping", "weight decay", "LoRA rank"):
        (item,) = bound(part, action="ADD").unbound
        assert item.reason.startswith("the plan does not say what to add")
    (item,) = bound("un-normalised perturbation", action="REMOVE").unbound
    assert "not there" in item.reason
    (item,) = bound("optimizer").unbound
    assert item.reason == "the plan does not say by what it is replaced"
    (item,) = bound("gradient estimator", action="REMOVE").unbound
    assert item.reason == "without an estimator nothing moves the weights"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1e-3", [1e-3]),
        ("10^{-3} and 5 × 10⁻⁴", [1e-3, 5e-4]),
        (r"$10^{-2}$, $2 \times 10^{-2}$", [1e-2, 2e-2]),
        ("10**-4", [1e-4]),
        ("2^4", [16]),
        ("20,000", [20_000]),
        ("2, 4 and 8", [2, 4, 8]),
        ("1, 10, 100", [1, 10, 100]),
        ("20K steps", [20_000]),
        ("One-point (Zhang et al. 2022)", []),
        ("as in Section 3 (Table 4)", []),
        ("−0.5", [-0.5]),
        ("50%", []),
        ("4.", [4]),
        ("1e-3.", [1e-3]),
    ],
)
def test_numbers_in_prose(text: str, found: list[float]) -> None:
    assert numbers(text) == found


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_a_number_is_read_as_python_writes_it(value: float) -> None:
    assert numbers(repr(value)) == [value]
    assert settings_of(bound("learning rate", [f"lr = {value!r}"])) in (
        [{"learning_rate": float(f"{value:.12g}")}],
        [],
    )


@given(st.text(max_size=200))
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    numbers(text)
    bound("learning rate", [text])


@pytest.mark.parametrize(
    "text",
    ["10x larger", "half", "twice", "0.1 × lr", "×10", "1/10", "lr halved", "10%", "4 layers", "1e-5 or so"],
)
def test_multiples_of_the_baseline_are_refused(text: str) -> None:
    found = bound("learning rate", [text])
    assert found.variants == ()
    assert "is not understood" in found.unbound[0].reason


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Task Performance (Accuracy/F1/ROUGE)", ("accuracy", "f1", "rouge")),
        ("Memory (GB)", ("peak_memory_gb", "device_memory_gb")),
        ("Peak GPU memory", ("device_memory_gb",)),
        ("GPU-hours", ("device_hours",)),
        ("Wall-clock time", ("train_seconds",)),
        ("Training time per step (s)", ("train_seconds",)),
        ("Convergence speed", ("steps_to_threshold", "seconds_to_threshold", "area_under_curve")),
        ("Steps to convergence", ("steps_to_threshold", "seconds_to_threshold", "area_under_curve")),
        ("Training loss", ("train_loss",)),
        ("Loss on the validation set", ("loss",)),
        ("training and validation loss", ("train_loss", "loss")),
        ("Exact match (EM)", ("exact_match",)),
        ("Fraction of zero gradients", ("zero_gradient_fraction",)),
        ("Number of forward passes", ("forward_passes",)),
        ("Downstream performance", ("accuracy", "f1", "rouge")),
        ("Test accuracy (%)", ("accuracy",)),
        ("communication cost", ()),
    ],
)
def test_metrics_in_prose(text: str, names: tuple[str, ...]) -> None:
    assert metric_names([text]) == (names, () if names else (text,))


def test_metrics_are_named_once() -> None:
    assert metric_names(["accuracy", "Accuracy (%)", "beauty"]) == (("accuracy",), ("beauty",))


def test_a_stub_is_yaml_whatever_its_values_are() -> None:
    found = bound("prompt", ["'{sentence}: it was'", "a better one"])
    assert yaml.safe_load(found.stubs["s"]) == {
        "set": [{"template": "{sentence}: it was"}, {"template": "..."}]
    }


VALUES_OF = [
    (part, " ".join(spelling), values)
    for part in parts()
    for phrase, values in (*part.values, *part.own)
    for spelling in sorted(expanded(phrase))[:3]
]
NUMBERS_OF = [
    (part, number, " ".join(sorted(expanded(phrase))[0]))
    for part in parts()
    for number in part.numbers
    for phrase in (*number.symbols, *part.names[:2])
]


@settings(max_examples=300, deadline=None)
@given(one=st.sampled_from(VALUES_OF), other=st.sampled_from(VALUES_OF))
def test_two_values_together_set_both_or_are_refused(one: Any, other: Any) -> None:
    part, words, values = one
    _, more, others = other
    for variant in bound(part.title, [f"{words} with {more}"]).variants:
        assert variant.settings.items() >= values.items()
        assert variant.settings.items() >= others.items()


@settings(max_examples=300, deadline=None)
@given(one=st.sampled_from(VALUES_OF), other=st.sampled_from(NUMBERS_OF), value=st.integers(1, 30))
def test_a_value_with_a_number_sets_both_or_is_refused(one: Any, other: Any, value: int) -> None:
    part, words, values = one
    symbol = other[2]
    for variant in bound(part.title, [f"{words} with {symbol} {value}"]).variants:
        assert variant.settings.items() >= values.items()
        assert value in [v for v in variant.settings.values() if not isinstance(v, bool)]


@settings(max_examples=300, deadline=None)
@given(
    one=st.sampled_from(VALUES_OF),
    more=st.sampled_from(["twice", "unless n", "for biases", "7", "0.37", "not"]),
)
def test_a_word_more_is_refused(one: Any, more: str) -> None:
    part, words, _ = one
    found = bound(part.title, [f"{words} {more}"])
    for variant in found.variants:
        assert float(more) in variant.settings.values()
