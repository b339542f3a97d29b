"""What an ablation plan is: JSON values, of bounded number and depth."""

import datetime
import math
import re
from itertools import chain, count
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mezo.errors import MezoError

Action = Literal["REMOVE", "REPLACE", "ADD"]
MOST_VALUES = 20_000  # of one plan: YAML's aliases turn a kilobyte into more than memory holds
_MOST_NESTED = 20


class _Values(BaseModel):
    """Fields of JSON values; unknown ones are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _json(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        # a plan's studies are checked one by one, so that an error says in which it is
        apart = {key: values[key] for key in values.keys() & {"studies"} & cls.model_fields.keys()}
        return {**json_values({key: value for key, value in values.items() if key not in apart}), **apart}


class Study(_Values):
    """One ablation: a part of a method, the change to it, and what is measured."""

    name: str
    ablated_part: str
    action: Action
    replacement: list[Any] | dict[str, Any] | None = None  # one variant an entry
    metrics: tuple[str, ...] = ()  # in the words of the plan's author
    # settings in place of the words: one mapping a variant (null: its words are read), or one for all of them
    set: list[dict[str, Any] | None] | dict[str, Any] | None = None

    @field_validator("name", "ablated_part")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("expected some text, found none")
        return value

    def __str__(self) -> str:
        return f"{self.name}: {self.action} {self.ablated_part}"

    @property
    def fields(self) -> dict[str, Any]:
        """All fields, as a file has them."""
        return self.model_dump(mode="json", exclude={"set"} if self.set is None else None)


class Plan(_Values):
    """Studies by importance, with the reasoning behind them. A repeated study name gets a number."""

    title: str = ""
    reasoning: str | None = None
    studies: tuple[Study, ...] = Field((), validate_default=True)

    @field_validator("studies")
    @classmethod
    def _unique_names(cls, studies: tuple[Study, ...]) -> tuple[Study, ...]:
        if not studies:
            raise ValueError("expected at least one study, found none")
        taken: set[str] = set()
        return tuple(study.model_copy(update={"name": unique(study.name, taken)}) for study in studies)

    @classmethod
    def build(cls, **values: Any) -> Self:
        """A plan from JSON values; a mistake is a one-line MezoError."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise MezoError(_one_line(error)) from None


def json_values(value: Any, depth: int = 0, left: list[int] | None = None) -> Any:
    """`value` as None, bool, int, float, str, lists, and dicts with string keys.

    Dates become text, tuples become lists, and half surrogate pairs become U+FFFD. left: how many more values may come.

    Raises ValueError for infinities, other objects, and too many or too deeply nested values.
    """
    left = left or [MOST_VALUES]
    left[0] -= 1
    if left[0] < 0:
        raise ValueError(f"expected at most {MOST_VALUES} values in a plan, found more")
    if depth > _MOST_NESTED:
        raise ValueError(f"expected lists and mappings at most {_MOST_NESTED} deep, found deeper ones")
    if isinstance(value, dict):
        return {str(json_values(k)): json_values(inner, depth + 1, left) for k, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(inner, depth + 1, left) for inner in value]
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number, found {value}")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"expected text, a number, a list or a mapping, found {type(value).__name__}")


def unique(name: str, taken: set[str]) -> str:
    """The name, with a number behind it if it is taken; it is taken then."""
    numbered = (f"{name} ({number})" for number in count(2))
    found = next(each for each in chain([name], numbered) if each not in taken)
    taken.add(found)
    return found


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
