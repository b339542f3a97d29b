"""A task asked in other words: the same rows and answers behind a custom prompt template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mezo.errors import MezoError
from mezo.tasks.base import Task, TextExample, placed
from mezo.tasks.row import Row
from mezo.tasks.template import filled, names_in


@dataclass(frozen=True, kw_only=True)
class Templated(Task):
    """`inner` with its prompt made by `template`: text with {field} for fields of a row, and {mask},
    once, where a masked model is to answer. A causal model answers at the end.
    """

    inner: Task
    template: str

    def label(self, row: Row) -> int | None:
        return self.inner.label(row)

    def causal(self, row: Row) -> TextExample:
        if "mask" in names_in(self.template):
            raise MezoError(
                f"template {self.template!r}: {{mask}} is for masked models; a causal one answers at the end"
            )
        example = self._filled(row, self.inner.causal(row))
        words = placed(self.inner.label_words, example.prompt) or example.candidates
        return replace(example, candidates=words)

    def masked(self, row: Row) -> TextExample:
        if names_in(self.template).count("mask") != 1:
            raise MezoError(f"template {self.template!r}: a masked model needs {{mask}} in it, once")
        if not self.inner.label_words:
            return self._filled(row, self.inner.masked(row))
        # A task need not have a masked form of its own to be given one.
        example = replace(self.inner.causal(row), candidates=self.inner.label_words)
        return self._filled(row, example)

    def fitted(self, rows: Sequence[Row]) -> Task:
        return with_template(self.inner.fitted(rows), self.template)

    def unfold(self, fields: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self.inner.unfold(fields)

    def skips(self, row: Row) -> str | None:
        return self.inner.skips(row)

    def _filled(self, row: Row, example: TextExample) -> TextExample:
        head, text, tail = filled(self.template, row)
        return replace(example, head=head, text=text, tail=tail)


def with_template(task: Task, template: str) -> Task:
    """Raises MezoError if the template names no field, or is not a template."""
    wanted = tuple(dict.fromkeys(name for name in names_in(template) if name != "mask"))
    if not wanted:
        raise MezoError(
            f"template {template!r}: expected the name of a field in braces, such as {{{task.fields[0]}}}"
        )
    own = {f.name: getattr(task, f.name) for f in fields(Task)}
    own["fields"] = tuple(dict.fromkeys((*task.fields, *wanted)))
    return Templated(**own, inner=task, template=template)
