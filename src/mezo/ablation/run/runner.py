"""Running a study: every run in its own process, each result kept as soon as it is there."""

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from mezo.ablation.run.cases import Run
from mezo.ablation.run.folder import REQUEST
from mezo.ablation.run.journal import Journal, threshold_of
from mezo.ablation.run.measures import Threshold
from mezo.ablation.run.prepare import Prepared, threads
from mezo.ablation.run.processes import PROGRAM, Ended, Processes, environment
from mezo.run import RunFolder, read_metrics, to_json


@dataclass(frozen=True, slots=True)
class Finished:
    """What running a study came to."""

    made: int  # runs that ended well, this time
    failed: tuple[tuple[str, str], ...]  # (run, error), this time
    left: int  # that are still to be made
    stopped: bool  # by Ctrl-C
    threshold: Threshold | None = None


def run_study(
    prepared: Prepared,
    command: Sequence[str] = (),
    *,
    say: Callable[[str], None] = lambda text: None,
    program: Sequence[str] = PROGRAM,
) -> Finished:
    """Make every run that is not there yet. Runs that failed before are tried again.

    command: what the person typed, for the report. say: hears a line for each run that ends. child: the
    program of a run's process, which is given the path of its request.

    Ctrl-C ends the runs under way, which go on from where they were when the study does. Raises MezoError if another
    process is at work in the folder, or a result cannot be written.
    """
    folder = prepared.folder
    with folder.locked():
        if not folder.request.exists():
            folder.agree(prepared.agreed)
        folder.take_over()
        study = _Study(prepared, Processes(program, trusting=prepared.config.trust_remote_code), say)
        study.journal.begin(list(command))
        try:
            study.make(prepared.left())
            stopped = False
        except KeyboardInterrupt:
            stopped = True
        study.tell(all_told=not stopped)
        left = len(prepared.left())
        return Finished(study.made, tuple(study.failed.values()), left, stopped, study.threshold)


class _Study:
    """One execution of a study: what has ended in it, and what of that is written down."""

    def __init__(self, prepared: Prepared, processes: Processes, say: Callable[[str], None]) -> None:
        self.prepared, self.processes, self.say = prepared, processes, say
        self.journal = Journal(prepared)
        self.threshold: Threshold | None = None
        self.made = 0
        self.failed: dict[str, tuple[str, str]] = {}  # by key
        self._ended: dict[str, Ended] = {}  # by key, in this process
        self._told: set[str] = set()  # keys whose lines are written
        self._devices: queue.SimpleQueue[str] = queue.SimpleQueue()
        for device in prepared.devices:
            self._devices.put(device)

    def make(self, runs: Sequence[Run]) -> None:
        """Make runs, as many at a time as there are devices for; all of them end with an interrupt."""
        with ThreadPoolExecutor(len(self.prepared.devices)) as pool:
            futures: dict[Future[Ended], Run] = {pool.submit(self._one, run): run for run in runs}
            try:
                for number, future in enumerate(as_completed(futures), start=1):
                    self._take(futures[future], future.result(), f"{number}/{len(runs)}")
            except BaseException:
                self.processes.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, run: Run) -> Ended:
        """A run from its request to the folder under its name. In a thread of its own."""
        folder, device = self.prepared.folder, self._devices.get()
        try:
            request = {
                "config": {**run.config.model_dump(mode="json"), "device": device},
                "evaluation_seed": self.prepared.config.seed,
                "metrics": list(self.prepared.metrics),
            }
            text = to_json(request) + "\n"
            part, is_half = folder.begin(run.key, text)
            ended = self._process(part)
            if is_half and not (ended.ok or ended.killed or self.processes.stopped):
                folder.begin_again(part, text)  # what was left of it may be what is wrong
                ended = self._process(part)
            if ended.ok:
                folder.finish(run.key, part)
            elif not self.processes.stopped:
                folder.fail(run.key, part, killed=ended.killed)
            return ended
        finally:
            self._devices.put(device)

    def _process(self, part: Path) -> Ended:
        """The process of the run that is asked for in `part`, to its end."""
        limits = environment(threads(self.prepared.config, len(self.prepared.devices)))
        return self.processes.run(part / REQUEST, part / "log.txt", limits)

    def _take(self, run: Run, ended: Ended, number: str) -> None:
        self._ended[run.key] = ended
        if ended.ok:
            self.made += 1
            self.say(f"[{number}] {run.name}: {_figures(self.prepared.folder.run(run.key))}")
        else:
            self.failed[run.key] = (run.name, ended.error or "")
            self.say(f"[{number}] {run.name}: failed: {ended.error}")
        self.tell()

    def tell(self, *, all_told: bool = False) -> None:
        """Write down what has ended, once the baseline's runs have: its threshold is among their numbers.

        Until then nothing is lost by a kill, since a finished run's folder says all of it again.
        """
        folder = self.prepared.folder
        over = {r.key for r in self.prepared.runs if r.key in self._ended or folder.is_finished(r.key)}
        baseline = {run.key for run in self.prepared.runs if run.case.study is None}
        if not (all_told or baseline <= over):
            return
        if not self._told:
            self.threshold = threshold_of(self.prepared)
            if self.threshold is not None:
                self.journal.tell_threshold(self.threshold)
        for run in self.prepared.runs:
            if run.key in over - self._told:
                self.journal.tell_run(run, self._ended.get(run.key, Ended(True)), self.threshold)
        self._told |= over


def _figures(folder: Path) -> str:
    """The last evaluation of a run, and how long its steps took."""
    metrics = read_metrics(RunFolder(folder).metrics)
    seconds = sum(step.seconds for step in metrics.steps)
    last = metrics.evals[-1] if metrics.evals else None
    judged = "" if last is None else f"{last.headline or ''} loss {last.loss:.4f}, "
    named = f"{last.headline.name} " if last is not None and last.headline is not None else ""
    return f"{named}{judged}{len(metrics.steps):,} steps in {seconds:.1f} s"
