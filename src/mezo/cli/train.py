"""`mezo train`."""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mezo.cli.options import SETTINGS, with_config
from mezo.cli.progress import observer_for
from mezo.config import ASKED, MeZOConfig
from mezo.parallel.environment import rank_of_environment, restarted
from mezo.runs.pace import duration
from mezo.util.interrupts import TERMINATED
from mezo.util.profiling import WARM_UP, median_step_ms, shares

if TYPE_CHECKING:
    from mezo.resume.compatibility import Changed
    from mezo.training.trainer import TrainResult

EPILOG = r"""
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

Continue a killed run; or fork it at its last step, with another learning rate.

  mezo train --resume runs/lora
  mezo train --resume runs/lora --fork runs/slower --learning-rate 1e-5
"""


@with_config(SETTINGS)
def train(
    config: MeZOConfig,
    output: Path | None = typer.Option(
        None, "--output", "-o", help="Folder for everything the run writes; default: runs/TASK-TUNING-SEED."
    ),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a run in the folder."),
    resume: Path | None = typer.Option(
        None,
        "--resume",
        metavar="RUN",
        help="Continue an interrupted run with its own settings, to the bytes of an uninterrupted one.",
        show_default=False,
    ),
    fork: Path | None = typer.Option(
        None,
        "--fork",
        metavar="NEW_RUN",
        help="With --resume: continue in a new folder, with settings that may differ from here on.",
        show_default=False,
    ),
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
    log: list[str] = typer.Option(
        [],
        "--log",
        metavar="NAME",
        show_default=False,
        help="Log to tensorboard, wandb or mlflow as well; may be repeated.",
    ),
    metrics_file: Path | None = typer.Option(
        None,
        "--metrics-file",
        metavar="FILE",
        show_default=False,
        help="Write the run's numbers to a file for Prometheus.",
    ),
) -> None:
    """Fine-tune a model with forward passes only.

    Writes the tuned weights, the trajectory (which replays to the same weights), metrics, plots and a
    model card into one folder. Ctrl-C stops after the current step and saves everything; SIGTERM saves what
    --resume needs, and exits with 143.
    """
    from mezo.combinations import recommended
    from mezo.resume.compatibility import Changed
    from mezo.runs.folder import RunFolder
    from mezo.sinks import Several, logging_to, names_for

    if fork is not None and resume is None:
        raise typer.BadParameter("--fork goes on from a run: give that one with --resume")
    if resume is None:
        config = recommended(config)
    folder = fork or resume or output or Path("runs") / _default_name(config)
    if resume is None and restarted() and RunFolder(folder).config.is_file():
        # torchrun starts all processes anew, with the same command, when one of them is gone
        given = {name: getattr(config, name) for name in ("trust_remote_code", *ASKED)}
        resume, config, overwrite = folder, MeZOConfig.load(RunFolder(folder).config, **given), False
    if resume is None and rank_of_environment() == 0:
        RunFolder.check(folder, overwrite=overwrite)  # before the model is loaded, which takes a while
    with (
        observer_for(sys.stdout) as shown,
        logging_to(
            names_for(log, resume, shown.on_note),
            run=folder,
            config=config,
            metrics_file=metrics_file,
            note=shown.on_note,
        ) as logs,
    ):
        from mezo.resume.session import Resume, is_finished
        from mezo.training.trainer import MeZOTrainer

        try:
            if resume is not None and fork is None:
                Resume.of(resume, config, fork=None, output=output, overwrite=overwrite)
                if is_finished(resume, config):
                    print(f"{resume} is finished: all {config.num_steps} steps are done and saved")
                    return
            trainer = MeZOTrainer(
                config,
                output=folder if resume is None else output,
                overwrite=overwrite,
                observer=Several(shown, logs),
                profile=profile,
                trace_steps=trace,
                resume=resume,
                fork=fork,
            )
        except Changed as error:
            _show(error)
            raise
        with closing(trainer):
            result = trainer.train()
    _report(result, folder)
    if result.interrupted:
        raise typer.Exit(TERMINATED if result.terminated else 130)


def _default_name(config: MeZOConfig) -> str:
    name = f"{config.task}-{config.tuning}-{config.seed}"
    # of a plugin, a path or a call
    return re.sub(r"[^\w.]+", "-", name).lstrip(".-") if ":" in name else name


def _show(error: "Changed") -> None:
    """What differs, as a table on standard error."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "the run", "now", box=None, pad_edge=False)
    for row in error.differences:
        table.add_row(*map(Text, row))
    Console(stderr=True).print(table)


def _report(result: "TrainResult", folder: Path) -> None:
    from mezo.runs.folder import RunFolder

    run = RunFolder(folder)
    print()
    if result.interrupted:
        saved = "what it takes to go on" if result.terminated else "everything"
        print(
            f"{'terminated' if result.terminated else 'stopped'} at step {len(result.steps)}, {saved} saved in {folder}"
        )
        print(f"go on with: {shlex.join(['mezo', 'train', '--resume', str(folder)])}")
    if len(result.evals) > 1:
        first, last = result.evals[0], result.evals[-1]
        when = f"  (step {last.step})" if result.interrupted else ""
        if first.headline is not None and last.headline is not None:
            print(f"{first.headline.name:<9} {first.headline} -> {last.headline}{when}")
        print(f"loss      {first.loss:.4f} -> {last.loss:.4f}{when}")
    print(f"time      {duration(result.seconds)}, peak memory {result.peak_memory_bytes / 2**30:.2f} GiB")
    if result.start is not None:
        (before, after), passes = result.start["loss"], result.start["forward_passes"]
        what = f"loss {before:.4f} -> {after:.4f}" if result.start["rows"] else "the model as it is"
        print(f"start     {what}, {passes} forward passes on {result.start['examples']} examples")
    reused, saved = result.metrics["token_reuse_rate"], result.metrics["seconds_saved"]
    if reused:
        time = f", about {duration(saved)} saved" if saved and saved >= 0.5 else ""
        print(f"reuse     {100 * reused:.1f} % of the tokens{time}")
    if (still := result.metrics["zero_gradient_fraction"]) and still >= 0.01:
        print(
            f"no move   {100 * still:.1f} % of the steps: their probes' losses were equal (docs/objectives.md)"
        )
    for notice in result.notices:
        print(f"noticed   step {notice.step}: {notice.text.removeprefix('warning: ')}")
    places = {
        "weights": run.adapter if result.config.saves_adapter else run.model,
        "replay": run.trajectory,
        "metrics": run.metrics,
        "plots": run.plots,
        "card": run.card,
        "profile": run.profile,
        "trace": run.trace,
        "logs": run.logs,
    }
    for name, path in places.items():
        if path.exists():
            print(f"{name:<9} {path}")
    if result.profile:
        print("\n" + _profile(result.profile))


def _profile(steps: Sequence[Mapping[str, float]]) -> str:
    """Lines of name, median milliseconds and share, from the seconds by name of at least one step."""
    left_out = WARM_UP if len(steps) > WARM_UP else 0
    counted = len(steps) - left_out
    of = f"{counted} step{'s' if counted > 1 else ''}" + (f" after the first {left_out}" if left_out else "")
    rows = [("a step", f"{median_step_ms(steps):.1f}", "")]
    rows += [(s.name, f"{s.median_ms:.1f}", f"{100 * s.share:.1f} %") for s in shares(steps)]
    lines = [f"{'profile':<9} {'median ms':>10} {'share':>8}   ({of})"]
    return "\n".join([*lines, *(f"{name:<9} {ms:>10} {share:>8}".rstrip() for name, ms, share in rows)])
