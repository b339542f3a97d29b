"""`--log` and `--metrics-file`: the numbers of a run elsewhere, besides what is shown here."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mezo.config import MeZOConfig
from mezo.events import Observer


@contextlib.contextmanager
def logged(
    shown: Observer,
    names: Sequence[str],
    metrics_file: Path | None,
    *,
    run: Path,
    resumed: Path | None,
    config: MeZOConfig,
) -> Iterator[Observer]:
    """`shown`, and what feeds the logs asked for. Raises MezoError for one that is not available."""
    from mezo.sinks import Several, logging_to, names_for

    names = names_for(names, resumed, shown.on_note)
    with logging_to(names, run=run, config=config, metrics_file=metrics_file, note=shown.on_note) as logs:
        yield Several(shown, logs)
