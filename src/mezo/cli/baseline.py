"""`mezo baseline`: linear-probe, finetune, compare."""

import sys
from pathlib import Path

import typer

from mezo.cli.options import DATA_SETTINGS, SETTINGS, panel_of, with_config
from mezo.cli.output import cell, say
from mezo.cli.progress import PlainObserver, observer_for
from mezo.config import METHOD, MeZOConfig
from mezo.runs.pace import duration

_EPILOG = r"""
[bold]Examples[/bold]

  mezo baseline linear-probe --task sst2 --data ./sst2 --output runs/probe

  mezo baseline finetune --task sst2 --data ./sst2 --batch-size 8 \
    --steps 1000 --output runs/adamw

  mezo baseline compare runs/zero.json runs/probe runs/adamw runs/mezo

Zero-shot and in-context learning are `mezo eval --shots N --json`.
"""

app = typer.Typer(
    help="Methods to compare MeZO with, on the same tasks and by the same metrics.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_EPILOG,
)

# Of the method, what gradients share with MeZO; not the learning rate, which has another size here.
_SHARED = {
    *("schedule", "warmup_steps", "weight_decay", "objective", "max_new_tokens", "stop"),
    "enable_kv_cache_optimization",
}
_OF_GRADIENTS = tuple(name for name in SETTINGS if panel_of(name) != METHOD or name in _SHARED)

_Output = typer.Option(None, "--output", "-o", help="Output folder; default: none, or as shown.")
_Overwrite = typer.Option(False, "--overwrite", help="Replace a run in the folder.")
_Json = typer.Option(False, "--json", help="Print one JSON object.")


@app.command("linear-probe")
@with_config(DATA_SETTINGS)
def linear_probe(
    config: MeZOConfig,
    output: Path | None = _Output,
    overwrite: bool = _Overwrite,
    as_json: bool = _Json,
) -> None:
    """Logistic regression on the frozen model's features, by scikit-learn.

    The features are the final hidden states where the answer would be read; how strongly the
    regression is regularised is chosen by cross-validation on the training examples.
    """
    from mezo.baselines.linear_probe import linear_probe as probe
    from mezo.util.json_text import to_json

    found = probe(config, output=output, overwrite=overwrite, observer=PlainObserver(sys.stderr))
    if as_json:
        print(to_json(found))
        return
    print(f"{config.task} {found['split']}, {found['examples']} examples; C = {found['strength']:g}")
    for name, value in found["metrics"].items():
        print(f"{name:<9} {100 * value:.1f} %")
    print(f"loss      {found['loss']:.4f}")
    _cost(found["seconds"], found["peak_memory_bytes"])
    if output is not None:
        print(f"folder    {output}")


@app.command("finetune")
@with_config(_OF_GRADIENTS)
def finetune(
    config: MeZOConfig,
    optimizer: str = typer.Option("adamw", "--optimizer", help="torch's adamw or sgd."),
    learning_rate: float | None = typer.Option(
        None,
        "--learning-rate",
        min=0,
        show_default=False,
        help="Step size; not read from --config. [dim]\\[1e-5 full, 1e-4 lora, 1e-2 prefix, 1e-4 norms][/dim]",
    ),
    max_grad_norm: float = typer.Option(
        1.0, "--max-grad-norm", min=0, help="Scale larger gradients down to this norm; 0: never."
    ),
    dropout: bool = typer.Option(False, "--dropout", help="Keep the model's dropout on during steps."),
    output: Path | None = _Output,
    overwrite: bool = _Overwrite,
) -> None:
    """Fine-tune by backpropagation: same examples, order, objective and metrics as `mezo train`.

    Needs memory for gradients, activations and optimizer state; writes a folder like a run's. The
    paper's budget is 1,000 steps of batch 8 (RoBERTa) and 5 epochs of batch 8 (OPT).
    """
    from mezo.baselines.finetune import LEARNING_RATES
    from mezo.baselines.finetune import finetune as tune

    rate = LEARNING_RATES.get(config.tuning, 1e-5) if learning_rate is None else learning_rate
    config = MeZOConfig.build(**{**config.model_dump(), "learning_rate": rate})
    folder = output or Path("runs") / f"{config.task}-{optimizer}-{config.tuning}-{config.seed}"
    with observer_for(sys.stdout) as observer:
        result = tune(
            config,
            optimizer=optimizer,
            max_grad_norm=max_grad_norm,
            dropout=dropout,
            output=folder,
            overwrite=overwrite,
            observer=observer,
        )
    if len(result.evals) > 1:
        first, last = result.evals[0], result.evals[-1]
        if first.accuracy is not None and last.accuracy is not None:
            print(f"accuracy  {100 * first.accuracy:.1f} % -> {100 * last.accuracy:.1f} %")
        print(f"loss      {first.loss:.4f} -> {last.loss:.4f}")
    _cost(result.seconds, result.peak_memory_bytes)
    print(f"folder    {folder}")
    if result.interrupted:
        raise typer.Exit(130)


@app.command("compare")
def compare(
    runs: list[Path] = typer.Argument(
        ..., metavar="RUN...", help="Folders of runs and baselines; files of `mezo eval --json`."
    ),
    markdown: bool = typer.Option(False, "--markdown", help="Print the table as Markdown."),
    as_json: bool = _Json,
) -> None:
    """Compare runs and baselines in a table: score before, after and at best, steps, minutes, peak memory."""
    from dataclasses import asdict

    from mezo.baselines import compare as side_by_side
    from mezo.util.json_text import to_json

    lines = side_by_side.compare(runs)
    if as_json:
        print(to_json({"runs": [asdict(line) for line in lines]}))
    elif markdown:
        say(side_by_side.markdown(lines))
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table(*side_by_side.COLUMNS)
        for line in lines:
            table.add_row(*map(cell, line.cells()))
        Console(width=None if sys.stdout.isatty() else 200).print(table)
        if (note := side_by_side.footnote(lines)) is not None:
            say(note)


def _cost(seconds: float, peak: int) -> None:
    print(f"time      {duration(seconds)}, peak memory {peak / 2**30:.2f} GiB")
