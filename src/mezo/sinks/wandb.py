"""Weights & Biases, configured by its own environment variables and `wandb login`.

Sends the numbers, the settings without secrets, and the name of the RUN folder: not the console, the code, the
command line or the machine's figures, which may hold secrets.
"""

import os
from collections.abc import Sequence
from typing import Any

from mezo.sinks.background import PATIENCE
from mezo.sinks.base import Begun, Sink, SinkPoint

BEGIN_SECONDS = 30.0  # for its server to take a run; $WANDB_INIT_TIMEOUT changes it


class WeightsAndBiases(Sink):
    """Weights & Biases. Its environment variables and `wandb login` set project, entity, key and mode.

    It receives the numbers, the settings without secrets, and the name of RUN. The console, the code, the command
    line and machine figures, which may hold secrets, are not sent.

    Example:
        mezo train --task demo --steps 3 --log wandb
    """

    every = 1.0

    def open(self, begun: Begun) -> str:
        # read when it is imported: what it says is Background's to say; what it reports of itself, nobody asked for
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb  # pyright: ignore[reportMissingImports]

        begun.logs.mkdir(parents=True, exist_ok=True)
        mode = os.environ.get("WANDB_MODE") or None
        if mode is None and not wandb.login(prompt=False):
            mode = "offline"  # `wandb sync` sends it later; to ask for a key would hang an unattended run
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mezo"),
            name=os.environ.get("WANDB_NAME", begun.run.resolve().name),
            id=begun.id,
            resume="allow",
            dir=begun.logs,
            config=dict(begun.settings),
            mode=mode,  # pyright: ignore[reportArgumentType]
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                disable_job_creation=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                **bounds(wandb.Settings),
            ),
        )
        return str(self._run.id)

    def write(self, points: Sequence[SinkPoint]) -> None:
        for point in points:
            self._run.log(dict(point.numbers), step=point.step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def bounds(settings: Any) -> dict[str, Any]:
    """The program's end waits for W&B's own process, which tries again for 90 seconds to begin, and for as long as it
    takes to send the rest. What it has not sent by then is in RUN/logs/wandb, for `wandb sync`."""
    # not in older releases
    found = {"finish_timeout": PATIENCE} if "finish_timeout" in settings.model_fields else {}
    return found if "WANDB_INIT_TIMEOUT" in os.environ else {**found, "init_timeout": BEGIN_SECONDS}
