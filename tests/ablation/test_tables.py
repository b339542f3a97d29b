"""Plans that are laid out as tables, and pages of unusual marks."""

from typing import Any

import pytest

from mezo.ablation.formats.files import parse

ROWS = """
| # | Name | Ablated Part | Action | Replacement | Metrics |
|---|:----:|--------------|--------|-------------|---------|
| 1 | Scale | Perturbation scale (ε) | REPLACE | 1e-2, 1e-4 | Accuracy, Memory (GB) |
| 2 | **Noise** | Gaussian noise | replace | Rademacher<br>unit sphere | Accuracy |
| 3 | Prompt | Prompt | REMOVE | — | Accuracy |
"""
HTML_ROWS = """
<table><thead><tr><th>Study</th><th>Ablated Part</th><th>Action</th><th>Replacement</th><th>Metrics</th></tr></thead>
<tbody>
<tr><td>Scale</td><td>Perturbation scale (<em>&epsilon;</em>)</td><td>REPLACE</td>
<td>10<sup>-2</sup>, 10<sup>-4</sup></td><td>Accuracy, Memory (GB)</td></tr>
<tr>
  <td>Noise</td>
  <td>Gaussian noise</td>
  <td>REPLACE</td>
  <td><ul><li>Rademacher</li><li>unit sphere</li></ul></td>
  <td>Accuracy</td>
</tr>
<tr><td>Prompt</td><td>Prompt</td><td>REMOVE</td><td></td><td>Accuracy</td></tr>
</tbody></table>
"""
ONE_EACH = """
### Scale

| Field | Value |
|---|---|
| Ablated Part | Perturbation scale (ε) |
| Action | REPLACE |
| Replacement | 1e-2; 1e-4 |
| Metrics | Accuracy, Memory (GB) |

### Noise

| **Ablated Part** | Gaussian noise |
|---|---|
| **Action** | REPLACE |
| **Replacement** | Rademacher; unit sphere |
| **Metrics** | Accuracy |

### Prompt
Ablated Part | Action | Metrics
--- | --- | ---
Prompt | REMOVE | Accuracy
"""
TURNED = """
| | Scale | Noise | Prompt |
|---|---|---|---|
| Ablated Part | Perturbation scale (ε) | Gaussian noise | Prompt |
| Action | REPLACE | REPLACE | REMOVE |
| Replacement | 1e-2; 1e-4 | Rademacher; unit sphere | |
| Metrics | Accuracy, Memory (GB) | Accuracy | Accuracy |
"""
ONE_A_VALUE = """
| Study | Ablated Part | Action | Replacement | Metrics |
|---|---|---|---|---|
| Scale | Perturbation scale (ε) | REPLACE | 1e-2 | Accuracy, Memory (GB) |
| Scale | Perturbation scale (ε) | REPLACE | 1e-4 | Accuracy, Memory (GB) |
| Noise | Gaussian noise | REPLACE | Rademacher | Accuracy |
|  |  |  | unit sphere |  |
| Prompt | Prompt | REMOVE | None | Accuracy |
"""


def told(page: str, ending: str) -> list[tuple[Any, ...]]:
    studies = parse(page, ending).studies
    return [(s.name, s.ablated_part, s.action, s.replacement, s.metrics) for s in studies]


@pytest.mark.parametrize(
    ("page", "ending"),
    [(ROWS, ".md"), (HTML_ROWS, ".md"), (HTML_ROWS, ".html"), (ONE_EACH, ".md"), (TURNED, ".md"), (ONE_A_VALUE, ".md")],
    ids=["rows", "html in markdown", "html", "one table each", "turned", "one value a row"],
)  # fmt: skip
def test_studies_in_tables(page: str, ending: str) -> None:
    scale, noise, prompt = (
        told(f"# A plan\n\n## Ablation Plan\n{page}", ending) if ending == ".md" else told(page, ending)
    )
    assert scale[:3] == ("Scale", "Perturbation scale (ε)", "REPLACE")
    assert scale[3] in ([0.01, 0.0001], ["10^{-2}", "10^{-4}"])
    assert scale[4] == ("Accuracy", "Memory (GB)")
    assert noise == ("Noise", "Gaussian noise", "REPLACE", ["Rademacher", "unit sphere"], ("Accuracy",))
    assert prompt == ("Prompt", "Prompt", "REMOVE", None, ("Accuracy",))


def test_a_table_of_something_else_stays_what_it_was() -> None:
    page = "### x\n- **Ablated Part**: p\n- **Action**: ADD\n\n| model | size |\n|---|---|\n| OPT | 13B |\n"
    (study,) = parse(page, ".md").studies
    assert (study.model_extra or {})["notes"] == "model | size\nOPT | 13B"


def test_further_columns_and_bars_in_cells_are_kept() -> None:
    page = "| Ablated Part | Action | Replacement | Why |\n|---|---|---|---|\n| z | ADD | z/\\|\\|z\\|\\| | unit length |\n"
    (study,) = parse(page, ".md").studies
    assert (study.replacement, (study.model_extra or {})["why"]) == (["z/||z||"], "unit length")


@pytest.mark.parametrize(
    "page",
    [
        "**Noise**\n– **Ablated part** – Gaussian noise\n– **Action** – REPLACE\n– **Replacement** – Rademacher; unit sphere\n– **Metrics** – Accuracy\n",
        "### Noise\n- *Ablated Part*: Gaussian noise\n- ACTION: Replace\n- Replacement Options: Rademacher | unit sphere\n- Metric(s): Accuracy\n",
        "### Noise\n- __Ablated_Part__: Gaussian noise\n- **Action:** REPLACE\n- **Replacement:**\n  ◦ Rademacher\n  ◦ unit sphere\n- **Metrics:** Accuracy\n",
        "<div><h2>ðŸ§  Reasoning Trace</h2>\n- **Action**: think\n</div>\n### Noise\n- **Ablated Part**: Gaussian noise\n- **Action**: REPLACE\n- **Replacement**: [Rademacher, unit sphere]\n- **Metrics**: Accuracy\n",
    ],
    ids=["dashes", "italics", "underscores", "mistaken twice"],
)  # fmt: skip
def test_marks_of_other_hands(page: str) -> None:
    (noise,) = told(page, ".md")
    assert noise == ("Noise", "Gaussian noise", "REPLACE", ["Rademacher", "unit sphere"], ("Accuracy",))


def test_a_set_in_braces() -> None:
    (study,) = told(
        "### n\n- **Ablated Part**: n\n- **Action**: REPLACE\n- **Replacement**: {2, 4, 8}\n", ".md"
    )
    assert study[3] == [2, 4, 8]
