"""`python -m tests.zoo`: judge every architecture and write docs/models.md; nothing is written if one is wrong."""

import os
import sys
from concurrent.futures import ProcessPoolExecutor

import torch
from tests.zoo.building import SKIPPED, architectures
from tests.zoo.judging import TUNINGS, Verdict, judge
from tests.zoo.table import PAGE, Row, render


def _judged(case: tuple[str, str]) -> Verdict | str:
    torch.set_num_threads(1)
    try:
        return judge(*case)
    except Exception as error:
        return f"{' '.join(case)}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def main() -> int:
    names = sys.argv[1:] or [a.name for a in architectures() if a.name not in SKIPPED]
    cases = [(name, tuning) for name in names for tuning in TUNINGS]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        found = dict(zip(cases, workers.map(_judged, cases), strict=True))
    wrong = [verdict for verdict in found.values() if isinstance(verdict, str)]
    for line in wrong:
        print(line)
    rows = [
        Row.of(name, {t: v for t in TUNINGS if isinstance(v := found[name, t], Verdict)})
        for name in names
        if all(isinstance(found[name, t], Verdict) for t in TUNINGS)
    ]
    if sys.argv[1:]:
        print("".join(row.line() for row in rows), end="")
    elif not wrong:
        PAGE.write_text(render(rows))
        print(f"{PAGE}: {len(rows)} architectures")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
