"""The folder of a baseline: read by whatever reads a run's."""

from collections.abc import Iterable
from pathlib import Path

from mezo.config import MeZOConfig
from mezo.events import EvalRecord
from mezo.runs.folder import RunFolder
from mezo.runs.metrics_file import MetricsWriter
from mezo.runs.summary import Summary, write_summary
from mezo.util.atomic_files import write_text


def write_folder(
    output: Path | str,
    config: MeZOConfig,
    records: Iterable[EvalRecord],
    summary: Summary,
    *,
    overwrite: bool = False,
) -> RunFolder:
    """config.yaml, metrics.jsonl and summary.json of a baseline that takes no steps.

    Raises MezoError if the folder is not available.
    """
    run = RunFolder.create(output, overwrite=overwrite)
    write_text(run.config, config.to_yaml())
    with MetricsWriter(run.metrics) as writer:
        for record in records:
            writer.write(record)
    write_summary(run.path, summary)
    return run
