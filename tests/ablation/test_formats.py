"""A plan reads back from the formats that plans are kept in, and is read from pages of many forms."""

import contextlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ablation.plans import PATHS, TEXT, plans
from tests.shared import shared

from mezo.ablation.formats.files import FORMATS, MOST_BYTES, parse, read_plan, write_plan
from mezo.ablation.plans.fields import repaired
from mezo.ablation.plans.plan import Plan
from mezo.errors import MezoError

EXACT = (".yaml", ".yml", ".json")  # a plan that is written reads back unchanged
ENDINGS = pytest.mark.parametrize("ending", EXACT)


def same(ending: str, plan: Plan) -> None:
    write = FORMATS[ending].write
    assert write is not None
    text = write(plan)
    again = parse(text, ending)
    assert again == plan
    # 1 and 1.0 and True are equal, and not the same
    assert again.model_dump_json() == plan.model_dump_json()
    text.encode("utf-8")


@ENDINGS
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_any_plan_reads_back(ending: str, plan: Plan) -> None:
    same(ending, plan)


@pytest.mark.slow
@ENDINGS
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_any_plan_reads_back_thoroughly(ending: str, plan: Plan) -> None:
    same(ending, plan)


@ENDINGS
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_plan_goes_through_every_format(path: Path, ending: str, tmp_path: Path) -> None:
    plan = read_plan(path)
    write_plan(plan, tmp_path / f"again{ending}")
    assert read_plan(tmp_path / f"again{ending}") == plan


def test_the_published_page() -> None:
    path = shared("plans/example-plan-page.md")
    plan = read_plan(path)
    assert plan.title == "lm-planner/gemini-25-flash/mezo"
    assert [(study.name, study.action, len(study.replacement or ())) for study in plan.studies] == [
        ("Ablation_PerturbationScale", "REPLACE", 3),
        ("Ablation_NumberOfSPSASamples", "REPLACE", 2),
        ("Ablation_ZOEstimator", "REPLACE", 1),
        ("Ablation_PerturbationGranularity", "REPLACE", 2),
    ]
    assert plan.studies[0].replacement == [0.001, 0.0001, 1e-05]
    assert plan.studies[0].metrics == ("Task Performance (Accuracy/F1/ROUGE)", "Memory (GB)", "GPU-hours")
    assert plan.reasoning is not None
    assert plan.reasoning.startswith("The user wants a list of up to 5 important ablation studies")
    assert "3. **Choice of ZO Estimator**: The paper chose SPSA." in plan.reasoning
    assert plan.reasoning.endswith("4. Changing the granularity of parameter perturbation.")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plan=plans())
def test_a_page_to_look_at_can_be_written_of_any_plan(plan: Plan) -> None:
    write = FORMATS[".md"].write
    assert write is not None
    assert write(plan).isprintable() or "\n" in write(plan)


# -------------------------------------------------------------------------------- pages

STUDY = """
- **Ablated Part**: the scale
- **Action**: REPLACE
- **Replacement**:
  - 0.1
  - big
- **Metrics**: Accuracy (%), Memory (GB)
"""


def only(text: str, ending: str = ".md") -> dict[str, object]:
    (study,) = parse(text, ending).studies
    return study.model_dump(exclude_none=True)


WANTED = {
    "name": "Scale",
    "ablated_part": "the scale",
    "action": "REPLACE",
    "replacement": [0.1, "big"],
    "metrics": ("Accuracy (%)", "Memory (GB)"),
}


@pytest.mark.parametrize(
    "page",
    [
        f"### Scale{STUDY}",
        f"# Title\n## Ablation Plan\n##### Scale ##{STUDY}",
        f"**Scale**\n{STUDY}",
        f"1. **Scale**\n{STUDY}".replace("\n- ", "\n   - ").replace("\n  -", "\n      -"),
        f"### Scale{STUDY.replace('- ', '* ')}",
        f"### Scale{STUDY.replace('**:', ':**')}",
        f"### Scale{STUDY.replace('**', '')}",
        f"### Scale{STUDY.replace('REPLACE', 'replace')}",
        f"### Scale{STUDY.replace(chr(10), chr(10) * 2)}",
        f"### Scale{STUDY.replace(chr(10), chr(13) + chr(10))}",
        f"### Scale{STUDY.replace('- **', '**')}".replace("\n  -", "\n-"),
        f"### Scale{STUDY}".replace(":\n  - 0.1\n  - big", ": 0.1, big"),
        f"### Scale{STUDY}".replace(":\n  - 0.1\n  - big", ": [0.1, 'big']"),
        f"### Scale{STUDY}".replace("(%), Memory", "(%)\n  - Memory").replace(": Accuracy", ":\n  - Accuracy"),
        f"### Scale{STUDY}".replace("  - 0.1\n  - big", "  1. 0.1\n  2. big"),
        f"<div><h2>Ablation Plan</h2>\n\n### Scale{STUDY}</div>",
        f"### <b>Scale</b>{STUDY}",
        f"- **Name**: Scale{STUDY}",
    ],
)  # fmt: skip
def test_forms_of_a_page(page: str) -> None:
    assert only(page) == WANTED


@pytest.mark.parametrize(
    "said", ["- **Replacement**: None", "- **Replacement**: N/A", "- **Replacement**:", ""]
)
def test_nothing_as_the_replacement_and_no_metrics(said: str) -> None:
    study = only(f"### Momentum\n- **Ablated Part**: momentum\n- **Action**: ADD\n{said}\n")
    assert (study.get("replacement"), study["metrics"]) == (None, ())


def test_a_mapping_as_the_replacement() -> None:
    nested = "\n  - **epsilon**: 0.01\n  - **n**: `[1, 2]`\n"
    for said in (nested, " {epsilon: 0.01, n: [1, 2]}\n", ' {"epsilon": 0.01, "n": [1, 2]}\n'):
        study = only(f"### x\n- **Ablated Part**: both\n- **Action**: REPLACE\n- **Replacement**:{said}")
        assert study["replacement"] == {"epsilon": 0.01, "n": [1, 2]}


def test_a_line_that_is_broken_goes_on() -> None:
    page = "### x\n- **Ablated Part**: the way\n  it is\n- **Action**: REPLACE\n- **Replacement**:\n  - one\n    of them\n"
    assert (only(page)["ablated_part"], only(page)["replacement"]) == ("the way it is", ["one of them"])


def test_what_is_said_beside_a_study_is_kept() -> None:
    page = f"Written in a hurry.\n\n### Scale\nWhy: it matters.\n{STUDY}- **Expected Outcome**: a dip\n"
    plan = parse(page, ".md")
    assert plan.model_extra == {"notes": "Written in a hurry."}
    assert plan.studies[0].model_extra == {"expected_outcome": "a dip", "notes": "Why: it matters."}


def test_reasoning_ends_with_its_box_or_at_the_next_heading() -> None:
    inside = "First.\n\n### not a study\n- a point"
    boxed = f"<div><h2>Reasoning Trace</h2>\n\n{inside}\n</div>\n<div>\n\n### Scale{STUDY}</div>"
    flat = f"## Reasoning\n{inside}\n\n## Plan\n### Scale{STUDY}"
    short = f"## Reasoning\nFirst.\n### Scale{STUDY}"
    told = inside.replace("study\n", "study\n\n")
    assert [parse(page, ".md").reasoning for page in (boxed, flat, short)] == [told, told, "First."]
    assert all(only(page)["name"] == "Scale" for page in (flat, short))


def test_a_page_of_html_alone() -> None:
    plan = read_plan(next(path for path in PATHS if path.suffix == ".html"))
    assert plan.title == "Where the perturbation is held"
    assert (
        plan.reasoning
        == "The memory of MeZO comes from a trick with **seeds**: z & the weights are never held at once."
    )
    assert [len(study.replacement or ()) for study in plan.studies] == [0, 4, 4]
    assert plan.studies[1].ablated_part == "Resampling z from the random seed instead of storing it"


def test_text_whose_encoding_was_mistaken_is_set_right() -> None:
    plan = read_plan(next(path for path in PATHS if path.stem == "mojibake"))
    assert [study.name for study in plan.studies] == ["Ablation_ε", "Ablation_Momentum"]
    assert plan.studies[0].replacement == [0.1, "10⁻⁴"]
    for text in ("naïve café", "Ünïcödé", "½ × ±", "“quoted” – dash…"):
        assert repaired(text) == text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=80) | st.lists(TEXT, max_size=6).map("\n".join), known=st.booleans())
def test_any_text_is_a_page_or_a_mistake_in_one_line(text: str, known: bool) -> None:
    for ending in (".md", ".html", ".jsonl", ".yaml", ""):
        with contextlib.suppress(MezoError):
            plan = parse(f"{text}\n\n### Scale{STUDY}" if known else text, ending)
            assert plan.studies


# -------------------------------------------------------------------------------- planner output, data


def line(name: str) -> str:
    return json.dumps(
        {"name": name, "ablated_part": "p", "action": "REMOVE", "replacement": None, "metrics": []}
    )


@pytest.mark.parametrize(
    "text",
    [
        f"<predictions>\n{line('a')}\n{line('b')}\n</predictions>",
        f"Sure!\n<predictions>\n\n```json\n{line('a')},\n{line('b')}\n```\n</predictions>\nDone.",
        f"<predictions>[{line('a')}, {line('b')}]</predictions>",
        f"<predictions>{line('a')} , {line('b')}</predictions>",
        f"<discussion>first <predictions> then</discussion><predictions>\n{line('a')}\n{line('b')}\n",
        f"<predictions>\n{json.dumps(json.loads(line('a')), indent=2)}\n{line('b')}\n</predictions>",
        f"{line('a')}\n{line('b')}\n",
        f'<predictions>{{"studies": [{line("a")}, {line("b")}]}}</predictions>',
    ],
)  # fmt: skip
def test_forms_of_planner_output(text: str) -> None:
    for ending in (".jsonl", ".txt", *([".md"] if "<predictions>" in text else [])):
        assert [study.name for study in parse(text, ending).studies] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"<predictions>\n{line('a')}\n{{'name': 1}}\n</predictions>", "line 3: no JSON object: expecting property name"),
        (f"<predictions>\n{line('a')}\n{line('b')[:-9]}", "line 3.*it may have been cut off"),
        (f"<predictions>\n{line('a')} and more\n</predictions>", "line 2: expected one JSON object, found more"),
        (f"{line('a')}\n[1]\n", "line 2.*"),
        ('<predictions>\n{"name": "x", "action": "ADD"}\n</predictions>', "expected the ablated part"),
        ('{"name": "x", "ablated_part": "p", "action": "MEND"}', "REMOVE, REPLACE or ADD, found 'MEND'"),
        ("I cannot do that.", "found neither"),
        ("<predictions>\n{}\n</predictions>", "expected"),
    ],
)  # fmt: skip
def test_broken_planner_output_is_told_by_its_line(text: str, told: str) -> None:
    with pytest.raises(MezoError, match=told):
        parse(text, ".jsonl")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("x.yaml", "- [", "not readable as YAML"),
        ("x.yaml", "!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("x.yaml", "a: 2021-99-99", "not readable as YAML|expected"),
        ("x.yaml", "just words", "expected a list of studies"),
        ("x.json", "{", "not readable as JSON"),
        ("x.json", "[" * 100_000, "not readable as JSON"),
        ("x.json", "[]", "expected at least one study"),
        (
            "x.json",
            '[{"ablated_part": "p", "action": "ADD", "action": "REMOVE"}]',
            "the key action is there twice",
        ),
        (
            "x.jsonl",
            '{"ablated_part": "p", "action": "ADD", "action": "REMOVE"}',
            "the key action is there twice",
        ),
        ("x.json", '[{"ablated_part": "p", "action": "ADD", "replacement": [Infinity]}]', "finite"),
        ("x.json", '[{"ablated_part": "", "action": "ADD"}]', "study 1: expected the ablated part as text"),
        ("x.json", '[{"ablated_part": "p", "action": "ADD", "metrics": [1]}]', "metrics as a list of texts"),
        ("x.md", "# A page\n\nof words\n", "found none"),
        ("x.md", "### x\n- **Ablated Part**: p\n", "study 1 of the page: expected the action"),
    ],
)
def test_mistakes_are_told_in_one_line(name: str, text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(MezoError, match=told) as error:
        read_plan(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(MezoError, match="found more"):
        read_plan(tmp_path / "large.yaml")
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    lines.append("studies: [{name: x, ablated_part: p, action: ADD, replacement: *i}]")
    (tmp_path / "laughs.yaml").write_text("\n".join(lines))
    with pytest.raises(MezoError, match=r"found more|deeper|aliases come to"):
        read_plan(tmp_path / "laughs.yaml")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(MezoError, match="cannot read the plan: No such file"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("- name: é".encode("latin-1"))
    with pytest.raises(MezoError, match="expected text in UTF-8, found other bytes at 8"):
        read_plan(tmp_path / "latin.yaml")
    plan = read_plan(PATHS[0])
    with pytest.raises(MezoError, match=r"plans are written as .*, not as '\.pdf'"):
        write_plan(plan, tmp_path / "plan.pdf")
    with pytest.raises(MezoError, match="cannot write the plan"):
        write_plan(plan, tmp_path / "none" / "plan.md")


def test_yaml_can_be_edited_by_hand() -> None:
    """Reasoning stands in lines of its own, and nothing is an alias or a tag."""
    text = FORMATS[".yaml"].write(read_plan(next(path for path in PATHS if path.stem == "cache")))  # pyright: ignore[reportOptionalCall]
    assert "reasoning: |\n  Rows of a batch begin alike.\n" in text
    assert yaml.safe_load(text)["studies"][0]["action"] == "REMOVE"
