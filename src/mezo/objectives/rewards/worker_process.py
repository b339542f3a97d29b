"""A process that computes one reward function: `python -m mezo.objectives.rewards.worker_process NAME`.

It reads a JSON object a line, {"row": ..., "output": ...}, and answers each with {"value": number}, {"bad": text} for what is
no number, or {"error": text}. What the function prints goes to standard error. It ends when its input does.
"""

import json
import os
import queue
import sys
import threading
from numbers import Real
from typing import Any, TextIO

from mezo.errors import MezoError
from mezo.objectives.rewards.base import shown
from mezo.util import plugins


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    asked: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read, args=(asked,), daemon=True).start()
    try:
        plugins.trust("objective", name)
        plugin = plugins.load("objective", name)
    except MezoError as error:
        _answer(answers, {"error": str(error)})
        return
    _answer(answers, {"ready": True})
    while True:
        question = json.loads(asked.get())
        try:
            value = plugin.found(question["row"], question["output"], **plugin.settings)
        except Exception as error:
            reason = " ".join(str(error).split())
            _answer(answers, {"error": f"raised {type(error).__name__}{reason and ': '}{reason}"})
        else:
            _answer(answers, {"value": float(value)} if isinstance(value, Real) else {"bad": shown(value)})


def _read(asked: "queue.Queue[str]") -> None:
    """Beside the function, so that this process ends with the one that asks even while the function hangs."""
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)


def _answer(answers: TextIO, found: dict[str, Any]) -> None:
    answers.write(json.dumps(found) + "\n")
    answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
