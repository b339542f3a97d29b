"""`mezo bench`: step, noise, memory, modes, prefix, converge, scale."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mezo.registry import look_up

if TYPE_CHECKING:
    from mezo.bench.report import Report

_EPILOG = r"""
[bold]Examples[/bold]

  mezo bench step --data ./sst2 --json

  mezo bench step --model smollm2-135m --dtype bfloat16 --tuning lora --threads 2

  mezo bench prefix --data ./tasks --workload icl --workload copa

  mezo bench engine --data ./sst2 --without-cache --json

  mezo bench converge --data ./sst2 --loss 0.65 --max-steps 400

What is measured and against what: docs/performance.md
"""

app = typer.Typer(
    help="Measurements on this machine: ratios within one run. Every list may be given several times.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog=_EPILOG,
)

_DTYPES = ("float32", "bfloat16", "float16")
_TUNINGS = ("full", "lora")

Model = Annotated[str, typer.Option("--model", help="A folder, smollm2-135m, or opt-125m-shape.")]
Data = Annotated[str | None, typer.Option(help="Folder of JSON Lines; none: see docs/performance.md.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of torch. None: its own choice.")]
Seed = Annotated[int, typer.Option(min=0, help="Of batches and noise.")]
Size = Annotated[int, typer.Option("--batch-size", min=1, help="Examples of a batch.")]
OwnSize = Annotated[int | None, typer.Option("--batch-size", min=1, help="Examples of a batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as a page has it.")]
Many = list[str] | None


@app.command("step")
def step(
    model: Annotated[Many, typer.Option(help="A folder, smollm2-135m, or opt-125m-shape.")] = None,
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(_DTYPES)}.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(_TUNINGS)}.")] = None,
    batch: Annotated[Many, typer.Option(help="Of: synthetic (random rows), sst2 (text).")] = None,
    case: Annotated[Many, typer.Option(help="What to time; all by default.")] = None,
    data: Data = None,
    batch_size: Size = 16,
    length: Annotated[int, typer.Option(min=2, help="Tokens of a synthetic row.")] = 64,
    rounds: Rounds = 7,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """A whole step against two bare forward passes and against the published implementation's step."""
    from mezo.bench import step as bench
    from mezo.bench.text import BATCHES

    settings = bench.HEADLINES
    if model or dtype or tuning or batch:
        settings = tuple(
            bench.Setting(m, d, t, b)
            for m in model or ["smollm2-135m"]
            for d in _known(dtype or ["float32"], _DTYPES, "dtype")
            for t in _known(tuning or ["full"], _TUNINGS, "tuning mode")
            for b in _known(batch or bench.batches_of(m), BATCHES, "batch")
        )
    cases = _known(case or bench.CASES, bench.CASES, "case")
    options = bench.Options(data, batch_size, length, rounds, threads, seed, cases)
    _show(bench.run(settings, options, _note), as_json, markdown)


@app.command("noise")
def noise(
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(_DTYPES)}.")] = None,
    kind: Annotated[Many, typer.Option(help="Of: gaussian, rademacher.")] = None,
    elements: Annotated[int, typer.Option(min=1, help="Weights that are passed over.")] = 1 << 24,
    rounds: Rounds = 7,
    threads: Annotated[list[int] | None, typer.Option(min=1, help="Threads of torch.")] = None,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """G elements/s a thread of the noise kernels, against a bare pass over the same memory."""
    from mezo.bench import noise as bench

    options = bench.Options(
        elements,
        _known(dtype or ("float32", "bfloat16"), _DTYPES, "dtype"),
        _known(kind or bench.KINDS, bench.KINDS, "noise"),
        threads or (),
        rounds,
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("memory")
def memory(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(_DTYPES)}. Default: float32.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(_TUNINGS)}. Default: full.")] = None,
    batch: Annotated[
        Many, typer.Option(help="synthetic (default), sst2, or a workload of mezo bench prefix.")
    ] = None,
    case: Annotated[Many, typer.Option(help="What to measure; all by default.")] = None,
    data: Data = None,
    batch_size: OwnSize = None,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each case.")] = 3,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Peak memory of a step over plain inference, each case in a process of its own."""
    from mezo.bench import memory as bench

    options = bench.Options(
        model,
        _known(dtype or ["float32"], _DTYPES, "dtype"),
        _known(tuning or ["full"], _TUNINGS, "tuning mode"),
        _known(batch or ["synthetic"], bench.BATCHES, "batch"),
        data,
        batch_size,
        repeats,
        threads,
        seed,
        _known(case or (), bench.CASES, "case"),
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("modes")
def modes(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help=f"Of: {', '.join(_DTYPES)}. Default: float32.")] = None,
    tuning: Annotated[Many, typer.Option(help=f"Of: {', '.join(_TUNINGS)}. Default: full.")] = None,
    batch: Annotated[str, typer.Option(help="synthetic (random rows) or sst2 (text).")] = "synthetic",
    way: Annotated[
        Many, typer.Option(help="What to measure beside the default; all but one by default.")
    ] = None,
    data: Data = None,
    batch_size: Size = 16,
    rounds: Rounds = 5,
    repeats: Annotated[int, typer.Option(min=1, help="Processes of each way, for the peaks.")] = 3,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Memory modes and optimizers against the default: time of a step and peak memory."""
    from mezo.bench import modes as bench
    from mezo.bench.text import BATCHES

    options = bench.Options(
        model=model,
        dtypes=_known(dtype or ["float32"], _DTYPES, "dtype"),
        tunings=_known(tuning or ["full"], _TUNINGS, "tuning mode"),
        batch=_known([batch], BATCHES, "batch")[0],
        data=data,
        batch_size=batch_size,
        rounds=rounds,
        repeats=repeats,
        threads=threads,
        seed=seed,
        ways=_known(way or (), bench.WAYS, "way"),
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("prefix")
def prefix(
    model: Model = "smollm2-135m",
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(_DTYPES)}.")] = "float32",
    tuning: Annotated[str, typer.Option(help=f"One of {', '.join(_TUNINGS)}.")] = "full",
    workload: Annotated[Many, typer.Option(help="Of: icl, boolq, multirc, record, copa.")] = None,
    data: Data = None,
    batch_size: OwnSize = None,
    max_length: Annotated[int, typer.Option(min=64, help="Longer passages lose their end.")] = 1024,
    bare: Annotated[bool, typer.Option("--bare", help="Also against two bare forward passes.")] = False,
    rounds: Rounds = 7,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """What computing shared beginnings of rows once saves, and whether it changes the losses."""
    from mezo.bench import prefix as bench
    from mezo.bench.passages import WORKLOADS

    options = bench.Options(
        model=model,
        dtype=_known([dtype], _DTYPES, "dtype")[0],
        tuning=_known([tuning], _TUNINGS, "tuning mode")[0],
        data=data,
        batch_size=batch_size,
        max_length=max_length,
        bare=bare,
        rounds=rounds,
        threads=threads,
        seed=seed,
        workloads=_known(workload or WORKLOADS, WORKLOADS, "workload"),
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("engine")
def engine(
    model: Annotated[str, typer.Option("--model", help="A folder, or smollm2-135m.")] = "smollm2-135m",
    dtype: Annotated[str, typer.Option(help=f"One of {', '.join(_DTYPES)}.")] = "float32",
    name: Annotated[
        Many,
        typer.Option("--engine", help="Of: transformers, sglang, vllm. Default: those that are installed."),
    ] = None,
    workload: Annotated[Many, typer.Option(help="Of: sst2, icl (16 demonstrations).")] = None,
    data: Annotated[
        str | None, typer.Option(help="Folder of SST-2's fields; none: packaged reviews.")
    ] = None,
    batch_size: OwnSize = None,
    without_cache: Annotated[
        bool, typer.Option("--without-cache", help="Also every engine with its cache off.")
    ] = False,
    sglang_python: Annotated[
        str | None, typer.Option(envvar="MEZO_SGLANG_PYTHON", help="The Python that has SGLang.")
    ] = None,
    vllm_python: Annotated[
        str | None, typer.Option(envvar="MEZO_VLLM_PYTHON", help="The Python that has vLLM.")
    ] = None,
    rounds: Rounds = 5,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """LoRA steps a second on engines that serve, beside the transformers engine, and what their caches spare."""
    from mezo.bench import engine as bench

    pythons = {"sglang": sglang_python, "vllm": vllm_python}
    options = bench.Options(
        model=model,
        dtype=_known([dtype], _DTYPES, "dtype")[0],
        data=data,
        engines=_known(name or (), bench.ENGINES, "engine"),
        workloads=_known(workload or bench.WORKLOADS, bench.WORKLOADS, "workload"),
        batch_size=batch_size,
        without_cache=without_cache,
        rounds=rounds,
        threads=threads,
        seed=seed,
        pythons={engine: python for engine, python in pythons.items() if python},
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("converge")
def converge(
    model: Model = "smollm2-135m",
    dtype: Annotated[Many, typer.Option(help="Ours; a race each. Default: float32.")] = None,
    reference_dtype: Annotated[str, typer.Option(help="The reference's.")] = "float32",
    tuning: Annotated[str, typer.Option(help=f"One of {', '.join(_TUNINGS)}.")] = "full",
    data: Data = None,
    template: Annotated[str | None, typer.Option(help="A custom prompt, as in mezo train.")] = None,
    label_words: Annotated[str | None, typer.Option(help="Words of the classes, as in mezo train.")] = None,
    learning_rate: Annotated[float, typer.Option(help="Constant, of both.")] = 3e-5,
    epsilon: Annotated[float, typer.Option(help="Of both.")] = 1e-3,
    batch_size: Size = 16,
    loss: Annotated[float, typer.Option(help="The validation loss that is wanted.")] = 0.65,
    max_steps: Annotated[int, typer.Option(min=1, help="Give up after so many.")] = 400,
    eval_every: Annotated[int, typer.Option(min=1, help="Steps of a block.")] = 10,
    eval_examples: Annotated[int, typer.Option(min=1, help="Validation examples.")] = 200,
    threads: Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """Seconds and steps to a stated SST-2 validation loss, beside the published implementation's loop."""
    from mezo.bench import converge as bench

    options = bench.Options(
        model=model,
        dtypes=_known(dtype or ["float32"], _DTYPES, "dtype"),
        reference_dtype=_known([reference_dtype], _DTYPES, "dtype")[0],
        tuning=_known([tuning], _TUNINGS, "tuning mode")[0],
        data=data,
        template=template,
        label_words=label_words,
        learning_rate=learning_rate,
        epsilon=epsilon,
        batch_size=batch_size,
        loss=loss,
        max_steps=max_steps,
        eval_every=eval_every,
        eval_examples=eval_examples,
        threads=threads,
        seed=seed,
    )
    _show(bench.run(options, _note), as_json, markdown)


@app.command("scale")
def scale(
    model: Annotated[Many, typer.Option(help="Sizes, as 13B; all by default.")] = None,
    tp: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Workers a copy is cut over; as few as hold it by default."),
    ] = None,
    dp: Annotated[list[int] | None, typer.Option(min=1, help="Copies; 1, 8, 64, 512 by default.")] = None,
    gigabits: Annotated[
        list[float] | None, typer.Option(min=0.001, help="Gbit/s between copies; 100 by default.")
    ] = None,
    memory: Annotated[float, typer.Option(min=1, help="GB of a worker.")] = 80.0,
    tokens: Annotated[int, typer.Option(min=1, help="Of a microbatch.")] = 1024,
    microbatches: Annotated[
        int | None, typer.Option(min=1, help="Of a step; one for each copy by default.")
    ] = None,
    directions: Annotated[int, typer.Option(min=1, help="Of a step.")] = 1,
    check: Annotated[
        bool, typer.Option("--check", help="Measure one and two processes here, and the model's error.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Of --check, after one that does not count.")] = 5,
    as_json: Json = False,
    markdown: Markdown = False,
) -> None:
    """What a step would take on 1 to thousands of workers, by a model; and how far that is off here."""
    from mezo.bench import scale as bench
    from mezo.bench.cost import SHAPES

    options = bench.Options(
        models=_known(model or (), [shape.name for shape in SHAPES], "size"),
        tp=tp or (),
        dp=dp or (1, 8, 64, 512),
        gigabits=gigabits or (100.0,),
        memory=memory,
        tokens=tokens,
        microbatches=microbatches,
        directions=directions,
        check=check,
        rounds=rounds,
    )
    _show(bench.run(options, _note), as_json, markdown)


def _known(names: Iterable[str], choices: Iterable[str], what: str) -> Sequence[str]:
    """The names, each one of the choices; told before anything is measured. Raises MezoError."""
    table = {choice: choice for choice in choices}
    return tuple(look_up(table, name, what) for name in names)


def _note(text: str) -> None:
    print(f"mezo: {text}", file=sys.stderr, flush=True)


def _show(report: "Report", as_json: bool, markdown: bool) -> None:
    if as_json:
        print(json.dumps(report.as_dict()))
    elif markdown:
        print(report.markdown())
    else:
        report.print()
