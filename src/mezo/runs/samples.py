"""What a model wrote as its run went on, with the rewards: RUN/samples.jsonl, and a page of it, RUN/samples.html."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezo.runs.folder import RunFolder
from mezo.util.atomic_files import write_text
from mezo.util.escaping import html_text
from mezo.util.foreign import read_text

_KEPT = 200  # steps with samples, the newest; all rows of a step are kept
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse;width:100%;margin-bottom:2rem}"
    "td,th{border:1px solid #ccc;padding:.4rem .6rem;text-align:left;vertical-align:top}"
    "td{white-space:pre-wrap;overflow-wrap:anywhere}td.reward{white-space:nowrap;text-align:right}"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was written after a prompt, and what it earned."""

    step: int  # updates done
    prompt: str
    expected: list[str]
    output: str
    reward: float


def write_samples(run: RunFolder, samples: Sequence[Sample]) -> None:
    """Add the samples of a step to the run's, in place of earlier ones of it or of a later step, which are from before the
    run was resumed. Raises OSError if they cannot be written.
    """
    if not samples:
        return
    step = samples[0].step
    before = [entry for entry in _read(run.samples) if entry["step"] < step]
    steps = sorted({entry["step"] for entry in before})[-(_KEPT - 1) :]
    entries = [entry for entry in before if entry["step"] in steps] + [asdict(each) for each in samples]
    write_text(run.samples, "".join(json.dumps(entry) + "\n" for entry in entries))
    write_text(run.samples_page, page(entries))


def page(entries: Sequence[dict[str, Any]]) -> str:
    """The samples as HTML, the newest first: texts of other people's making, none of which becomes markup."""
    parts = []
    for step in sorted({entry["step"] for entry in entries}, reverse=True):
        mine = [entry for entry in entries if entry["step"] == step]
        mean = sum(entry["reward"] for entry in mine) / len(mine)
        rows = "".join(
            f"<tr><td>{html_text(e['prompt'])}</td><td>{html_text(e['output'])}</td>"
            f"<td>{html_text(' | '.join(e['expected']))}</td><td class=reward>{e['reward']:.4g}</td></tr>\n"
            for e in mine
        )
        parts.append(
            f"<h2>Step {step}: mean reward {mean:.4g}</h2>\n<table><tr><th>prompt</th><th>written</th><th>expected</th>"
            f"<th>reward</th></tr>\n{rows}</table>\n"
        )
    return (
        '<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>Samples</title>"
        f"<style>{_STYLE}</style></head><body>\n<h1>Samples</h1>\n{''.join(parts)}</body></html>\n"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    """Those in the file; lines of another form are skipped."""
    found: list[dict[str, Any]] = []
    try:
        lines = read_text(path, most=1 << 28).splitlines()
    except (OSError, ValueError):
        return found
    for line in lines:
        try:
            entry = json.loads(line)
            texts = [entry["prompt"], entry["output"], *entry["expected"]]
            sound = type(entry["step"]) is int and isinstance(entry["reward"], int | float)
        except (ValueError, KeyError, TypeError):
            continue
        if sound and all(isinstance(text, str) for text in texts):
            found.append(entry)
    return found
