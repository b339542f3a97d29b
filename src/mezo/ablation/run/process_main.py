"""The process of one run, or of timing: `python -m mezo.ablation.run.process_main [--trust-remote-code] REQUEST.json`.

Every run has its own process, because peak memory is measured for a process, and a crash leaves the other runs alone.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from mezo.ablation.run.processes import TRUST, end_with_parent
from mezo.errors import MezoError
from mezo.util.parsing import one_line
from mezo.util.secrets import hidden

_BEGAN = time.monotonic()  # before torch is imported, which takes seconds


def main(path: Path, *, trusting: bool = False) -> int:
    """Do what the request says; 2 and one line on standard error for a user's mistake."""
    request: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    warnings.simplefilter("ignore")  # from other libraries to their developers
    try:
        from mezo.ablation.run import training

        if "output" in request:
            training.time_to(request, Path(request["output"]), began=_BEGAN, trusting=trusting)
        else:
            training.train_one(request, path.parent, trusting=trusting)
    except MezoError as error:
        print(f"mezo: error: {hidden(one_line(error))}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main(Path(sys.argv[-1]), trusting=TRUST in sys.argv[1:-1]))
