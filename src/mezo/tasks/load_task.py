"""A task from a YAML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from mezo.errors import MezoError, near
from mezo.tasks.base import HubDataset, Task
from mezo.tasks.row import shown
from mezo.tasks.template import names_in
from mezo.tasks.yaml_task import Written
from mezo.util.foreign import read_text
from mezo.util.parsing import parse_yaml
from mezo.util.plugins import find


class _Hub(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    id: str
    config: str | None = None
    splits: dict[str, str] = {}


class _File(BaseModel):
    """What may stand in the file; `mezo.tasks.yaml_task` says what it means."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str | None = None
    prompt: str | None = None
    masked: str | None = None
    cut: str | None = None
    label: str | None = None
    labels: list[str | bool | int] | None = None
    label_words: list[str] | None = None
    answer: str | None = None
    candidates: str | None = None
    fields: list[str] = []
    metrics: list[str] | None = None
    hub: _Hub | str | None = None
    samples: list[dict[str, Any]] = []


def read_task(path: Path) -> Task:
    """The task that a YAML file describes. Raises MezoError, which names the file and the field."""
    try:
        values = parse_yaml(read_text(path, pipe=True))
    except (OSError, ValueError) as error:
        raise MezoError(f"{path}: not a readable task file: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise MezoError(f"{path}: expected a mapping such as 'prompt: ...', found {type(values).__name__}")
    try:
        return _task(_File(**{str(key): value for key, value in values.items()}), path)
    except ValidationError as error:
        raise MezoError(f"{path}: {_one_line(error)}") from None
    except MezoError as error:
        raise MezoError(f"{path}: {error}") from None


def _task(file: _File, path: Path) -> Written:
    names = [names_in(template) for template in (file.prompt, file.masked) if template is not None]
    _check(file, names)
    label = None if file.answer else file.label or "label"
    wanted = [name for found in names for name in found if name != "mask"]
    wanted += [*file.fields, *(name for name in (label, file.answer, file.candidates) if name)]
    choice = not file.answer or file.candidates is not None
    words = file.label_words or [str(given) for given in file.labels or ()]
    given = tuple(file.labels or file.label_words or ())
    return Written(
        name=file.name or path.stem,
        home=HubDataset(file.hub)
        if isinstance(file.hub, str)
        else file.hub and HubDataset(**file.hub.model_dump()),
        fields=tuple(dict.fromkeys(wanted)),
        classes=tuple((str(one),) for one in given),
        label_words=tuple(" " + word.strip() for word in words),
        has_candidates=choice,
        metrics=_metrics(file.metrics, choice),
        samples=tuple(file.samples),
        prompt=file.prompt,
        masked_prompt=file.masked,
        cut=file.cut,
        label_field=label or "",
        labels=given,
        answer_field=file.answer,
        candidates_field=file.candidates,
        file=str(path),
    )


def _check(file: _File, names: Sequence[Sequence[str]]) -> None:
    """Raises MezoError where fields of the file do not go together."""
    if not names:
        raise MezoError(
            "expected 'prompt' (for causal models), 'masked' (for masked ones), or both; found neither"
        )
    if file.prompt is not None and "mask" in names_in(file.prompt):
        raise MezoError("prompt: {mask} is for masked models; put that template under 'masked'")
    if file.masked is not None and names_in(file.masked).count("mask") != 1:
        raise MezoError("masked: expected {mask} in the template, once")
    for found in names:
        if not set(found) - {"mask"}:
            raise MezoError("expected the name of a field in braces in every template, such as {text}")
        if file.cut is not None and file.cut not in found:
            raise MezoError(f"cut: no such field in the template: {file.cut!r}{near(file.cut, found)}")
    if file.answer and (file.label or file.labels or file.label_words):
        raise MezoError("expected 'answer', or 'label' with 'labels' and 'label_words'; found both")
    if not file.answer and not (file.labels or file.label_words):
        raise MezoError(
            "expected 'label_words' (the answers), or 'answer' (a field of the rows); found neither"
        )
    if file.candidates and not file.answer:
        raise MezoError("candidates: expected 'answer' beside it, the field of the right one")
    counts = {len(given) for given in (file.labels, file.label_words) if given is not None}
    if len(counts) > 1 or counts & {0, 1}:
        raise MezoError("expected two or more labels, and one label word for each of them")
    for name, given in (("labels", file.labels), ("label_words", file.label_words)):
        if given is not None and len(set(map(str, given))) < len(given):
            raise MezoError(f"{name}: expected different ones, found {', '.join(map(str, given))}")


def _metrics(names: Sequence[str] | None, choice: bool) -> tuple[str, ...]:
    from mezo.metrics import METRICS, ChoiceMetric

    kind = {name: metric for name, metric in METRICS.items() if isinstance(metric, ChoiceMetric) == choice}
    for name in names or ():
        find("metrics", name, kind)
    return tuple(names or (("accuracy",) if choice else ("squad-f1", "squad-em")))


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("list[", "str", "_Hub")))
    if first["type"] == "extra_forbidden":
        return f"unknown field {where!r}{near(where, _File.model_fields)}"
    return f"field {where!r}: {first['msg'][0].lower()}{first['msg'][1:]}, found {shown(first['input'])}"
