"""The folder of a search: what was asked for, and what each trial came to."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.search.space import SearchedSetting, SearchPlan
from mezo.util.atomic_files import write_text
from mezo.util.foreign import check_folder
from mezo.util.json_text import to_json
from mezo.util.parsing import dump_yaml, parse_json, parse_yaml
from mezo.util.settings_text import differing


@dataclass(frozen=True, slots=True)
class Trial:
    """A short run, judged by its loss on the validation examples."""

    rung: int
    steps: int
    learning_rate: float
    epsilon: float
    start: float  # loss before the first step; NaN if that was not reached
    loss: float  # after the last step; NaN if the run broke off
    score: float | None  # headline metric after the last step
    diverged: bool  # broke off, or ended far above the start: out of the search
    too_large: bool  # its slopes promised more than they can hold: goes behind all that did not
    seconds: float  # loading and evaluations included
    peak_memory_bytes: int

    @property
    def setting(self) -> SearchedSetting:
        return SearchedSetting(self.learning_rate, self.epsilon)


class SearchFolder:
    """OUT/search.yaml says what is searched, OUT/trials.jsonl has a line for each finished trial.

    Raises MezoError if the folder holds another search, or files that are not one's.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.request = self.path / "search.yaml"
        self.results = self.path / "trials.jsonl"
        self.best = self.path / "best.yaml"

    def open(self, asked: Mapping[str, Any]) -> tuple[int, ...] | None:
        """The rungs of the search that is there and goes on; None if there is nothing yet.

        asked: what the search depends on. Raises MezoError if the one that is there depends on other things.
        """
        check_folder(self.path, "search")
        if not self.request.exists():
            if self.results.exists() or self.best.exists():
                raise MezoError(
                    f"{self.path}: holds results of a search but no search.yaml; choose another --output"
                )
            return None
        try:
            found = parse_yaml(self.request.read_text(encoding="utf-8"))
            before, rungs = dict(found["asked"]), tuple(int(steps) for steps in found["rungs"])
            before["config"] = dict(before.get("config", {}))
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise MezoError(
                f"{self.request}: not what a search wrote ({type(error).__name__}); choose another --output"
            ) from None
        rows = differing(before, asked)
        if changed := [f"{name}: {there!r} there, {here!r} here" for name, there, here in rows]:
            raise MezoError(
                f"{self.path}: holds a search with other settings ({'; '.join(changed)}); choose another"
                " --output, or go on with the same settings"
            )
        return rungs

    def create(self, asked: Mapping[str, Any], plan: SearchPlan) -> None:
        """Note down a new search."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MezoError(f"{self.path}: cannot make the folder for the search: {error}") from None
        values = {"asked": dict(asked), "rungs": list(plan.rungs)}
        write_text(self.request, dump_yaml(values))

    def trials(self) -> list[Trial]:
        """The finished trials, in the order in which they ran. Raises MezoError, naming the line, for anything else."""
        if not self.results.exists():
            return []
        lines = self.results.read_text(encoding="utf-8", errors="replace").splitlines()
        return [_trial(line, f"{self.results}:{number}") for number, line in enumerate(lines, start=1)]

    def add(self, trial: Trial) -> None:
        """Keep a finished trial: the file holds it whole, or is what it was before."""
        lines = [to_json(asdict(t)) for t in (*self.trials(), trial)]
        write_text(self.results, "".join(line + "\n" for line in lines))


def _trial(line: str, where: str) -> Trial:
    try:
        values = parse_json(line)
        for name in ("start", "loss"):
            values[name] = math.nan if values[name] is None else float(values[name])
        return Trial(**values)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise MezoError(f"{where}: expected a trial, found {line[:40]!r} ({error})") from None
