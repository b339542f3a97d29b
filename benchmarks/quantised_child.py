"""A process of `python -m benchmarks quantised`: loads one case, and takes a step whenever a line asks for one."""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peak import EPSILON, LEARNING_RATE, adamw, forget_peak, peak_since
from benchmarks.quantised import BASE, Case
from benchmarks.reference import Padded
from benchmarks.timing import threads
from benchmarks.workload import full_batch, pad_of, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.errors import MezoError
from mezo.estimators import TwoPoint
from mezo.models.load import load
from mezo.models.quantised import quiet_packages
from mezo.objectives import OBJECTIVES


def step_of(case: Case) -> Callable[[int], object]:
    """A step of the case, by its number."""
    backwards = case.case.startswith("qlora")
    quantize = None if case.case == BASE else "nf4" if backwards else case.case
    loaded = load(case.model, "bfloat16", "cpu", quantize=quantize)
    forget_peak()
    vocabulary = loaded.model.config.get_text_config().vocab_size
    batch = full_batch(vocabulary, batch_size=case.batch_size, length=case.length)
    model = tuned(loaded, "lora")
    if not backwards:
        engine = model.engine("answer-ce")
        return lambda number: mezo_step(
            engine, TwoPoint(EPSILON), [batch], draw_of(case.seed, number, 1), LEARNING_RATE
        )
    if case.case == "qlora-checkpointing":
        base: Any = model.model
        base.enable_input_require_grads()
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.train()
    return adamw(model, Padded(batch, OBJECTIVES["answer-ce"], pad_of(loaded)))


def main(arguments: list[str]) -> None:
    out = sys.stdout
    case = Case(**json.loads(arguments[0]))

    def say(**values: Any) -> None:
        print(json.dumps(values), file=out, flush=True)

    with contextlib.redirect_stdout(sys.stderr), quiet_packages(), threads(case.threads):
        try:
            step = step_of(case)
            say(ready=True)
            for number, line in enumerate(sys.stdin):
                if line.strip() == "peak":
                    say(peak=peak_since())
                    continue
                began = time.perf_counter()
                step(number)
                say(seconds=time.perf_counter() - began)
        except (MezoError, RuntimeError, torch.OutOfMemoryError) as error:
            say(error=f"{case.case}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main(sys.argv[1:])
