"""Running a study: every run in its own process, each result written as soon as it is known."""

import queue
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass

from mezo.ablation.run.cases import Run
from mezo.ablation.run.costs import Say
from mezo.ablation.run.folder import REQUEST
from mezo.ablation.run.journal import Journal, run_record, study_records, threshold_of
from mezo.ablation.run.measures import Threshold
from mezo.ablation.run.prepare import PreparedStudy, threads
from mezo.ablation.run.processes import PROGRAM, Ended, Processes, environment
from mezo.runs.metrics_file import Metrics
from mezo.util.json_text import to_json


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of running a study."""

    made: int  # runs that ended well, this time
    failed: tuple[tuple[str, str], ...]  # (run, error), this time
    left: int  # runs that are still to be made
    stopped: bool  # by Ctrl-C
    threshold: Threshold | None = None


def run_study(
    prepared: PreparedStudy,
    command: Sequence[str] = (),
    *,
    say: Say = lambda text: None,
    program: Sequence[str] = PROGRAM,
) -> Finished:
    """Make every run that is not finished; runs that failed before are tried again.

    command: the user's, for the report. say: receives a line for each run that ends. program: of a run's process; its
    argument is the path of the request.

    Ctrl-C ends the unfinished runs, which resume with the study. Raises MezoError if another process works in the
    folder, or a result cannot be written.
    """
    folder = prepared.folder
    with folder.locked():
        if not folder.request.exists():
            folder.agree(prepared.agreed)
        folder.take_over()
        study = _Study(prepared, Processes(program, trusting=prepared.config.trust_remote_code), say)
        for record in study_records(prepared, list(command)):
            study.journal.add(record)
        stopped = False
        try:
            study.make(prepared.left())
        except KeyboardInterrupt:
            stopped = True
        study.record(final=not stopped)
        left = len(prepared.left())
        return Finished(study.made, tuple(study.failed.values()), left, stopped, study.threshold)


class _Study:
    """One execution of a study: which runs have ended in it, and which of them are recorded."""

    def __init__(self, prepared: PreparedStudy, processes: Processes, say: Say) -> None:
        self.prepared, self.processes, self.say = prepared, processes, say
        self.journal = Journal(prepared.folder.results)
        self.threshold: Threshold | None = None
        self.made = 0
        self.failed: dict[str, tuple[str, str]] = {}  # by key
        self._ended: dict[str, Ended] = {}  # by key, in this process
        self._recorded: set[str] = set()  # keys
        self._devices: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in prepared.devices:
            self._devices.put(device)

    def make(self, runs: Sequence[Run]) -> None:
        """Make runs, as many at a time as there are devices; an interrupt ends all of them."""
        with ThreadPoolExecutor(len(self.prepared.devices)) as pool:
            futures: dict[Future[Ended], Run] = {pool.submit(self._one, run): run for run in runs}
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    run, ended = futures[future], future.result()
                    self._ended[run.key] = ended
                    if ended.ok:
                        self.made += 1
                        said = _summary(self.prepared.folder.metrics(run.key))
                    else:
                        self.failed[run.key] = (run.name, ended.error or "")
                        said = f"failed: {ended.error}"
                    self.say(f"[{number}/{len(runs)}] {run.name}: {said}")
                    self.record()
            except BaseException:
                self.processes.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def record(self, *, final: bool = False) -> None:
        """Record the ended runs, once the baseline's have ended: its threshold is among their numbers.

        A kill before that loses nothing, because a finished run's folder contains its numbers.
        """
        folder = self.prepared.folder
        over = {r.key for r in self.prepared.runs if r.key in self._ended or folder.is_finished(r.key)}
        baseline = {run.key for run in self.prepared.runs if run.case.study is None}
        if not (final or baseline <= over):
            return
        if not self._recorded:
            self.threshold = threshold_of(self.prepared)
            if self.threshold is not None:
                self.journal.add({"kind": "meta", "threshold": asdict(self.threshold)})
        for run in self.prepared.runs:
            if run.key in over - self._recorded:
                error = self._ended[run.key].error if run.key in self._ended else None
                self.journal.add(run_record(self.prepared, run, error, self.threshold))
        self._recorded |= over

    def _one(self, run: Run) -> Ended:
        """A run from its request to the folder under its name. Called in a thread."""
        folder, config, device = self.prepared.folder, self.prepared.config, self._devices.get()
        request = {
            "config": {**run.config.model_dump(mode="json"), "device": device},
            "evaluation_seed": config.seed,
            "metrics": list(self.prepared.metrics),
        }
        text = to_json(request) + "\n"
        variables = environment(threads(config, len(self.prepared.devices)))
        try:
            part, resumes = folder.begin(run.key, text)
            ended = self.processes.run(part / REQUEST, part / "log.txt", variables)
            if resumes and not (ended.ok or ended.killed or self.processes.stopped):
                shutil.rmtree(part)  # the unfinished run may be the reason
                folder.begin(run.key, text)
                ended = self.processes.run(part / REQUEST, part / "log.txt", variables)
            if ended.ok:
                folder.finish(run.key, part)
            elif not self.processes.stopped:
                folder.fail(run.key, part, killed=ended.killed)
            return ended
        finally:
            self._devices.put(device)


def _summary(metrics: Metrics) -> str:
    """The last evaluation of a run, and the time of its steps."""
    took = f"{len(metrics.steps):,} steps in {sum(step.seconds for step in metrics.steps):.1f} s"
    if not metrics.evals:
        return took
    last = metrics.evals[-1]
    score = f"{last.headline.name} {last.headline}" if last.headline is not None else ""
    return f"{score} loss {last.loss:.4f}, {took}".lstrip()
