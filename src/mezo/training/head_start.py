"""Where a run with `start=linear-probe` begins: rows fitted by the first process, or those of the run that is resumed."""

import base64
from collections.abc import Callable
from typing import Any

from mezo.build.head_start import HeadStart, check_start, made_start
from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.errors import MezoError
from mezo.models.load import LoadedModel
from mezo.objectives import Objective
from mezo.parallel.group import ProcessGroup
from mezo.resume.plan import header_of
from mezo.resume.session import Resume
from mezo.resume.start_file import rows_of
from mezo.tuning.label_rows import LabelRows, digest_of


def head_start(
    config: MeZOConfig,
    base: LoadedModel,
    asked: tuple[EncodedDataset, Objective],
    group: ProcessGroup,
    *,
    resume: Resume | None,
    note: Callable[[str], None],
) -> HeadStart | None:
    """What the run starts from; None for the model as it is, with nothing fitted.

    Args:
        config, base: of the run.
        asked: the training examples, and the objective.
        group: all processes get the rows that the first one fitted.
        resume: a run that was begun has its rows in its folder.
        note: called with messages for people.

    Raises MezoError where the rows cannot be fitted or held (with start=auto that is said, and the run starts from the
    model), or the run's own are missing or changed.
    """
    if config.start == "model":
        return None
    header = None if resume is None else header_of(resume.run)
    if resume is not None and header is not None:
        begun = header.get("start")
        if begun is None and config.start == "auto":
            return None
        return HeadStart(rows_of(resume.run.path, header), dict(begun or {}), 0.0)
    found: dict[str, Any] = {}
    try:
        check_combination(config.model_copy(update={"start": "linear-probe"}))
        examples = check_start(config, base, *asked)
        if group.leads:
            found = _found(made_start(config, base, examples, note), note)
    except MezoError as error:
        if config.start != "auto":
            raise
        note(f"no head start: {error}")
    found = group.records(found)[0]
    if not found:
        return None
    data = found["data"]
    rows = None if data is None else LabelRows.of_bytes(base64.b64decode(data), "the first process")
    return HeadStart(rows, found["record"], found["seconds"])


def _found(made: HeadStart, note: Callable[[str], None]) -> dict[str, Any]:
    """What the first process tells the others."""
    note(made.in_words())
    data = None if made.rows is None else made.rows.to_bytes()
    return {
        "record": {**made.record, "rows": None if data is None else digest_of(data)},
        "data": None if data is None else base64.b64encode(data).decode(),
        "seconds": made.seconds,
    }
