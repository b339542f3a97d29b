"""Ablation plans: what a plan is, and where it is read from and written to."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from mezo.ablation.plans.json_values import plain
from mezo.errors import MezoError, near
from mezo.run import write_text

Action = Literal["REMOVE", "REPLACE", "ADD"]
MOST_BYTES = 1 << 20  # of a plan's file: a plan of a hundred studies has some 50 kB


class Study(BaseModel):
    """One ablation: a part of a method, what is done to it, and what is looked at.

    Fields that are not among these are kept as they are, and written back.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    ablated_part: str
    action: Action
    replacement: list[Any] | dict[str, Any] | None = None  # one variant an entry
    metrics: tuple[str, ...] = ()  # in the words of the plan's author
    set: list[dict[str, Any]] | dict[str, Any] | None = None  # settings of each variant, in place of binding

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        return plain(values) if isinstance(values, dict) else values

    @field_validator("name", "ablated_part")
    @classmethod
    def _said(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected some text, found none")
        return value

    @property
    def extra(self) -> dict[str, Any]:
        """The fields of the source that are not among a study's own."""
        return dict(self.__pydantic_extra__ or {})


class Plan(BaseModel):
    """Studies in the order of their importance, with the reasoning that led to them.

    Studies of the same name are told apart by a number behind it, since results are filed by name.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    title: str = ""
    reasoning: str | None = None
    studies: tuple[Study, ...]

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        rest = plain({key: value for key, value in values.items() if key != "studies"})
        return {**rest, "studies": values.get("studies", ())}

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if not self.studies:
            raise ValueError("expected at least one study, found none")
        taken: dict[str, int] = {}
        studies = []
        for study in self.studies:
            name, number = study.name, 1
            while name in taken:
                number += 1
                name = f"{study.name} ({number})"
            taken[name] = number
            studies.append(study if name == study.name else study.model_copy(update={"name": name}))
        object.__setattr__(self, "studies", tuple(studies))
        return self

    @property
    def extra(self) -> dict[str, Any]:
        """The fields of the source that are not among a plan's own."""
        return dict(self.__pydantic_extra__ or {})

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A plan from plain values; a mistake is a one-line MezoError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise MezoError(_one_line(error)) from None


def read_plan(path: Path | str) -> Plan:
    """The plan in a file: YAML, JSON, JSONL or planner output, Markdown or HTML, by its ending or content.

    Raises MezoError if the file cannot be read, is larger than a mebibyte, or holds no plan.
    """
    from mezo.ablation.formats.files import parse

    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise MezoError(f"{path}: cannot read the plan: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise MezoError(f"{path}: expected a plan of at most {MOST_BYTES} bytes, found a larger file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MezoError(f"{path}: expected text in UTF-8, found other bytes at {error.start}") from None
    try:
        return parse(text, path.suffix)
    except MezoError as error:
        raise MezoError(f"{path}: {error}") from None


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan in the format of the path's ending; `read_plan` then returns an equal one.

    Endings: .yaml, .yml, .json, .jsonl, .md, .html. Raises MezoError for another one, or if the file
    cannot be written.
    """
    from mezo.ablation.formats.files import WRITERS

    path = Path(path)
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise MezoError(f"{path}: no format of plans ends in {path.suffix!r}{near(path.suffix, WRITERS)}")
    try:
        write_text(path, writer(plan))
    except OSError as error:
        raise MezoError(f"{path}: cannot write the plan: {error.strerror}") from None


def _one_line(error: ValidationError) -> str:
    """Where in the plan, what was expected, what was found."""
    parts = []
    for item in error.errors():
        where = [str(p) for p in item["loc"] if p not in ("list[any]", "dict[str,any]")]
        if where[:1] == ["studies"] and len(where) > 1:
            where[:2] = [f"study {int(where[1]) + 1}"] if where[1].isdigit() else where[:2]
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "expected this field, found none"
        elif item["type"] == "literal_error":
            message = f"expected REMOVE, REPLACE or ADD, found {item['input']!r}"
        parts.append(f"{', '.join(where)}: {message}" if where else message)
    return "; ".join(dict.fromkeys(parts))
