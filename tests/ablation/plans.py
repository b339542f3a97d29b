"""Plans for the tests: those of the folder beside this file, and any that hypothesis thinks of."""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from mezo.ablation.plans.plan import Plan, Study

FOLDER = Path(__file__).parent / "plans"
PATHS = sorted(FOLDER.iterdir())

# Text that formats stumble on, beside what hypothesis makes up.
_HARD = (
    "a, b; c", "None", "null", "true", "1e-3", "007", "- x", "# x", "**x**", "**k**: v", "`x`", '`"x"`', "x: y",
    "</div>", "<pre>", "<seed>", "&lt;", "&amp;amp;", "<!-- x", "</predictions>", "<discussion>", "ðŸ§ ", "Ã©",
    "🧠 trace", "a\nb", "a\r\nb", " a ", "a  b", "| a |", "### x", "Action: REMOVE", "**Ablated Part**: x",
    "---", "'", '"', "\\", "\x00", "\x85", "\u2028", "\ufeff", "yes", "~", "!!python/object:x", "&a", "*a", "{a}", "[",
)  # fmt: skip
LETTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.one_of(
    st.sampled_from(_HARD), st.text(LETTERS, max_size=20), st.text("ab ,:-*#`<>&\n", max_size=12)
)
SAID = TEXT.filter(str.strip)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
_TAKEN = {*Plan.model_fields, *Study.model_fields}
EXTRA = st.dictionaries(
    st.one_of(st.sampled_from(["importance", "Notes", "metric", "discussion", "plan"]), SAID).filter(
        lambda key: key not in _TAKEN
    ),
    VALUES,
    max_size=2,
)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    values: dict[str, Any] = {
        "name": draw(SAID),
        "ablated_part": draw(SAID),
        "action": draw(st.sampled_from(["REMOVE", "REPLACE", "ADD"])),
        "replacement": draw(
            st.none() | st.lists(VALUES, max_size=3) | st.dictionaries(TEXT, VALUES, max_size=3)
        ),
        "metrics": draw(st.lists(TEXT, max_size=3)),
    }
    if draw(st.booleans()):
        values["set"] = draw(st.dictionaries(TEXT, VALUES, max_size=2))
    return values | draw(EXTRA)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    return Plan.build(
        title=draw(st.just("") | TEXT),
        reasoning=draw(st.none() | TEXT | st.lists(TEXT, max_size=4).map("\n".join)),
        studies=draw(st.lists(studies(), min_size=1, max_size=3)),
        **draw(EXTRA),
    )
