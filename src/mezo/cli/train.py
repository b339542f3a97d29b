"""`mezo train`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mezo.cli.options import WORDS, with_config
from mezo.cli.profile import table
from mezo.cli.progress import duration, observer_for
from mezo.config import MeZOConfig

if TYPE_CHECKING:
    from mezo.trainer import TrainResult

_EPILOG = r"""
[bold]Examples[/bold]

A first run: the built-in model on the built-in reviews.

  mezo train --task demo --steps 200 --batch-size 16 \
    --learning-rate 1e-5 --output runs/first

LoRA on your own model, and a folder with train.jsonl and validation.jsonl.

  mezo train --model ./my-model --task sst2 --data ./sst2 --tuning lora \
    --learning-rate 1e-4 --epsilon 1e-2 --steps 2000 --eval-every 250 \
    --output runs/lora

The same run again, with another seed.

  mezo train --config runs/lora/config.yaml --seed 1 --output runs/seed1
"""


def register(app: typer.Typer) -> None:
    app.command("train", epilog=_EPILOG)(train)


@with_config(WORDS)
def train(
    config: MeZOConfig,
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Folder for everything the run writes; default: runs/TASK-TUNING-SEED."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace the run that is in the folder."),
    profile: bool = typer.Option(
        False, "--profile", help="Measure where each step's time goes: a table at the end, and profile.json."
    ),
    trace: int = typer.Option(
        0,
        "--trace",
        min=0,
        metavar="N",
        show_default=False,
        help="Record a timeline of N steps into trace.json.gz, for ui.perfetto.dev; a few are enough.",
    ),
) -> None:
    """Fine-tune a model with forward passes only.

    Writes the tuned weights, the trajectory (from which they can be replayed), metrics, plots and a
    model card into one folder. Ctrl-C stops after the step under way and saves everything.
    """
    from mezo.run import RunFolder

    folder = output or Path("runs") / f"{config.task}-{config.tuning}-{config.seed}"
    RunFolder.check(folder, overwrite=overwrite)  # before the model is loaded, which takes a while
    with observer_for(sys.stdout) as observer:
        from mezo.trainer import MeZOTrainer

        trainer = MeZOTrainer(
            config, output=folder, overwrite=overwrite, observer=observer, profile=profile, trace_steps=trace
        )
        result = trainer.train()
    _report(result, folder)
    if result.interrupted:
        raise typer.Exit(130)


def _report(result: "TrainResult", folder: Path) -> None:
    from mezo.run import RunFolder

    run = RunFolder(folder)
    print()
    if result.interrupted:
        done = result.steps[-1].step + 1 if result.steps else 0
        print(f"stopped at step {done}, everything saved in {folder}")
    if len(result.evals) > 1:
        first, last = result.evals[0], result.evals[-1]
        when = f"  (step {last.step})" if result.interrupted else ""
        if first.headline is not None and last.headline is not None:
            print(f"{first.headline.name:<9} {first.headline} -> {last.headline}{when}")
        print(f"loss      {first.loss:.4f} -> {last.loss:.4f}{when}")
    print(f"time      {duration(result.seconds)}, peak memory {result.peak_memory_bytes / 2**30:.2f} GiB")
    reused, saved = result.metrics["token_reuse_rate"], result.metrics["seconds_saved"]
    if reused:
        time = f", about {duration(saved)} saved" if saved and saved >= 0.5 else ""
        print(f"reuse     {100 * reused:.1f} % of the tokens{time}")
    if (still := result.metrics["zero_gradient_fraction"]) and still >= 0.01:
        print(
            f"no move   {100 * still:.1f} % of the steps: their probes' losses were equal (docs/objectives.md)"
        )
    places = {
        "weights": run.model if run.model.exists() else run.adapter,
        "replay": run.trajectory,
        "metrics": run.metrics,
        "plots": run.plots,
        "card": run.card,
        "profile": run.profile,
        "trace": run.trace,
    }
    for name, path in places.items():
        if path.exists():
            print(f"{name:<9} {path}")
    if result.profile:
        print("\n" + table(result.profile))
