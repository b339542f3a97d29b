"""Steps on a GPU against two bare forward passes and the published step, and their peak memory over inference."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu_child import Settings
from benchmarks.gpu_figures import Figure
from benchmarks.peak import EPSILON, LEARNING_RATE, adamw, forget_peak, peak_since
from benchmarks.reference import Padded, reference_step
from benchmarks.timing import interleaved, ratio
from benchmarks.workload import copied, full_batch, pad_of, tuned
from mezo.algorithm import draw_of, mezo_step
from mezo.engines.transformers.engine import TransformersEngine
from mezo.estimators import TwoPoint
from mezo.models.load import LoadedModel
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example

Step = Callable[[int], object]
OBJECTIVE = "answer-ce"
STEP_AIM, PEAK_AIM, FROM = {"full": 1.10, "lora": 1.05}, 1.03, 1e9  # parameters: of models from there on


@dataclass(frozen=True)
class Shape:
    """OPT's sizes that a pass depends on."""

    name: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int = 50272

    def made(self, device: str) -> LoadedModel:
        """Random weights in bfloat16, made on the device."""
        from transformers import OPTConfig, OPTForCausalLM

        config = OPTConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            word_embed_proj_dim=self.hidden,
            ffn_dim=4 * self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
        )
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        torch.manual_seed(0)
        try:
            with torch.device(device):
                model: Any = OPTForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
        model.eval().requires_grad_(False)
        return LoadedModel(model, None, "causal", self.name)  # type: ignore[arg-type]  # it reads no text


SHAPES = (
    Shape("OPT-1.3B", 2048, 24, 32),
    Shape("OPT-6.7B", 4096, 32, 32),
    Shape("OPT-125M", 768, 12, 12),
)
TINY = Shape("tiny", 64, 2, 2, vocabulary=384)


class Meter:
    """Memory that torch holds on a GPU; in a dry run, that of the process."""

    def __init__(self, settings: Settings):
        self.gpu = not settings.dry

    def held(self) -> int:
        return torch.cuda.memory_allocated() if self.gpu else 0

    def restart(self) -> None:
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated() if self.gpu else peak_since()


@dataclass(frozen=True)
class Setting:
    """What is tuned on which batch. once: one position of a row is scored, else every one."""

    tuning: str
    length: int
    once: bool
    rows: int = 16

    def batch(self, vocabulary: int) -> list[Example]:
        rows = full_batch(vocabulary, batch_size=self.rows, length=self.length)
        if not self.once:
            return rows
        whole = [row.prompt + row.candidates[0] for row in rows]
        return [Example(tokens[:-1], (tokens[-1:],), 0) for tokens in whole]

    @property
    def text(self) -> str:
        return f"{self.tuning}, {self.rows} x {self.length}, {'one position' if self.once else 'every position'} scored"


SETTINGS = tuple(
    Setting(tuning, length, once)
    for length, once in ((64, False), (300, False), (64, True), (300, True))
    for tuning in ("full", "lora")
)


def measure(settings: Settings) -> None:
    """Every shape and setting; one that does not fit is a line that says so."""
    shapes, chosen, rounds = SHAPES, SETTINGS, 3
    if settings.dry:
        shapes, rounds = (TINY,), 1
        chosen = tuple(Setting(tuning, 9, once, 2) for tuning in ("full", "lora") for once in (False, True))
    for shape in shapes:
        plain = shape.made(settings.device)
        if shape is shapes[0]:
            again(plain, chosen[0], settings)
        for setting in chosen:
            try:
                _measure(plain, setting, rounds, settings)
            except torch.OutOfMemoryError as error:
                what = f"{shape.name}, {setting.text}"
                Figure(what, "step / two bare passes", None, why=str(error).splitlines()[0][:120]).say()
            _free()
        del plain
        _free()


def _measure(plain: LoadedModel, setting: Setting, rounds: int, settings: Settings) -> None:
    parameters = plain.model.num_parameters()
    aimed = parameters >= FROM
    what = f"{plain.name}, {setting.text}"
    batch = setting.batch(plain.model.config.vocab_size)
    padded = Padded(batch, OBJECTIVES[OBJECTIVE], pad_of(plain), settings.device)
    meter, weights = Meter(settings), sum(p.nbytes for p in plain.model.parameters())
    peaks: dict[str, float] = {}

    def kept(name: str, make: Callable[[], Step], others: int) -> Step:
        """The step, and its peak over two steps: of all that came into memory since `others` was held."""
        meter.restart()
        step = make()
        for number in range(2):
            step(number)
        settings.settle()
        peaks[name] = meter.peak() - others
        return step

    def bare(number: int) -> None:
        for _ in range(2):
            padded.logits(plain.model)

    bare(0)  # the libraries' own workspaces count for no case
    cases = {"bare": kept("bare", lambda: bare, meter.held() - (0 if settings.dry else weights))}
    cases["mezo"] = kept("mezo", lambda: ours(plain, setting, batch), meter.held())
    cases["reference"] = kept("reference", lambda: theirs(plain, setting, padded), meter.held())
    seconds = interleaved(cases, rounds, settings.settle)
    over = ratio(seconds, "mezo", "bare").as_dict()
    aim = STEP_AIM[setting.tuning] if aimed else None
    Figure.spread(what, "step / two bare passes", over, at_most=aim).say()
    Figure.spread(what, "published step / step", ratio(seconds, "reference", "mezo").as_dict()).say()
    Figure(what, "step, ms", 1e3 * sorted(seconds["mezo"])[rounds // 2]).say()
    Figure(what, "peak / inference", peaks["mezo"] / peaks["bare"], at_most=PEAK_AIM if aimed else None).say()
    Figure(what, "published step's peak / inference", peaks["reference"] / peaks["bare"]).say()
    cases.clear()
    _free()
    if settings.dry or (setting.length == SETTINGS[0].length and not setting.once):
        try:
            kept("adamw", lambda: adamw(tuned(copied(plain), setting.tuning), padded), meter.held())
            Figure(what, "AdamW's peak / inference", peaks["adamw"] / peaks["bare"]).say()
        except torch.OutOfMemoryError:
            Figure(what, "AdamW's peak / inference", None, why="does not fit").say()


def ours(plain: LoadedModel, setting: Setting, batch: list[Example]) -> Step:
    return stepping(tuned(copied(plain), setting.tuning).engine(OBJECTIVE), batch)


def stepping(engine: TransformersEngine, batch: list[Example]) -> Step:
    return lambda number: mezo_step(
        engine, TwoPoint(EPSILON), [engine.prepare(batch)], draw_of(0, number, 1), LEARNING_RATE
    )


def theirs(plain: LoadedModel, setting: Setting, padded: Padded) -> Step:
    model = tuned(copied(plain), setting.tuning)
    return lambda number: reference_step(
        model.parameters, lambda: padded.loss(model.model), lr=LEARNING_RATE, eps=EPSILON, seed=number
    )


def again(plain: LoadedModel, setting: Setting, settings: Settings) -> None:
    """Whether three steps, taken twice from the same weights, lead to the same bytes."""
    batch, sums = setting.batch(plain.model.config.vocab_size), set()
    for _ in range(2):
        with emptied():
            model = tuned(copied(plain), setting.tuning)
            step = stepping(model.engine(OBJECTIVE), batch)
            for number in range(3):
                step(number)
            sums.add(model.weights.checksum())
    Figure(
        f"{plain.name}, {setting.text}", "two runs have equal bytes", float(len(sums) == 1), at_least=1
    ).say()


@contextmanager
def emptied() -> Iterator[None]:
    try:
        yield
    finally:
        _free()


def _free() -> None:
    """Give back what nobody holds: engines and their models refer to each other."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
