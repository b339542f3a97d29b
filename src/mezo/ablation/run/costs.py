"""What a run of each case costs: from a few steps in a process, or from the finished runs of the study."""

import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mezo.ablation.binding.case import Case
from mezo.ablation.run.cases import Cost, Run, scaled
from mezo.ablation.run.folder import REQUEST, StudyFolder
from mezo.ablation.run.measures import OUTCOME, read_outcome
from mezo.ablation.run.processes import Processes, environment
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.atomic_files import write_text
from mezo.util.json_text import to_json

Say = Callable[[str], None]


def costs_by_timing(
    cases: Sequence[Case], config: MeZOConfig, say: Say
) -> tuple[dict[str, Cost], dict[str, str]]:
    """(costs, errors) by a case's key. Raises MezoError if the first case, the baseline, cannot make a step."""
    timed = {case.key: case for case in cases}
    costs: dict[str, Cost] = {}
    errors: dict[str, str] = {}
    for number, (key, case) in enumerate(timed.items(), start=1):
        say(f"timing a few steps, {number} of {len(timed)}: {case.name}")
        try:
            found = costs[key] = time_case(case, config)
            say(f"{case.name}: {found.step:.3g} s a step, {found.evaluation:.3g} s an evaluation")
        except MezoError as error:
            if key == cases[0].key:
                raise MezoError(f"the baseline cannot make a step: {error}") from None
            errors[key] = str(error)
    return costs, errors


def costs_of_runs(
    cases: Sequence[Case], runs: Sequence[Run], folder: StudyFolder, config: MeZOConfig, say: Say
) -> dict[str, Cost]:
    """Costs by a case's key, from the finished runs of a study; the baseline is timed if none of its runs is finished."""
    found: dict[str, Cost] = {}
    for run in runs:
        if folder.is_finished(run.key) and run.case.key not in found:
            found[run.case.key] = _measured(folder, run.key)
    if cases[0].key not in found:
        found |= costs_by_timing(cases[:1], config, say)[0]
    return with_estimates(cases, found)


def with_estimates(cases: Sequence[Case], known: dict[str, Cost]) -> dict[str, Cost]:
    """`known`, and the other cases' costs estimated from the baseline's."""
    base = cases[0]
    return {
        case.key: known.get(case.key) or scaled(known[base.key], base.config, case.config) for case in cases
    }


def time_case(case: Case, config: MeZOConfig) -> Cost:
    """The cost of a run of the case, from a process that makes a few steps. Raises MezoError if that fails."""
    with tempfile.TemporaryDirectory(prefix="mezo-timing-") as name:
        request, output = Path(name) / REQUEST, Path(name) / "cost.json"
        asked = {"config": case.config.model_dump(mode="json"), "evaluation_seed": config.seed}
        write_text(request, to_json({**asked, "output": str(output)}))
        processes = Processes(trusting=config.trust_remote_code)
        try:
            ended = processes.run(request, Path(name) / "log.txt", environment(None))
        finally:
            processes.stop()
        if not ended.ok:
            raise MezoError(str(ended.error))
        return Cost(**json.loads(output.read_text()))


def _measured(folder: StudyFolder, key: str) -> Cost:
    """The cost of a finished run."""
    metrics, outcome = folder.metrics(key), read_outcome(folder.run(key))
    began, ended = ((folder.run(key) / name).stat().st_mtime for name in (REQUEST, OUTCOME))
    return Cost(
        step=statistics.fmean(step.seconds for step in metrics.steps),
        fixed=max(0.0, ended - began - outcome.seconds),  # starting the process, loading the model
        evaluation=statistics.fmean(record.seconds for record in metrics.evals) if metrics.evals else 0.0,
        passes=outcome.forward_passes / len(metrics.steps),
    )
