"""A tuned model that can be compared with its base: the adapter on and off, or two models."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezo.data.chat_templates import with_chat_template
from mezo.errors import MezoError
from mezo.models.load import LoadedModel, load
from mezo.runs.outputs.finished import FinishedRun, is_run
from mezo.tuning import with_adapter
from mezo.tuning.adapter_files import CONFIG, settings_of
from mezo.tuning.prefix_keys import prefix_of


@dataclass
class TunedModel:
    """A model that writes text, and the base that it was tuned from.

    Args:
        model: with its adapter, if it has one.
        tokenizer: with the chat template to use.
        name: for people.
        load_base: loads the base of a run that tuned the weights themselves; None where there is no other model.
        stop, prefill: of the outputs of its run, where that was one by rewards.
    """

    model: Any
    tokenizer: Any
    name: str
    load_base: Callable[[], Any] | None = None
    stop: tuple[str, ...] = ()
    prefill: str = ""
    _base: Any = None

    @property
    def has_base(self) -> bool:
        """Whether there is a base to compare with."""
        return self.load_base is not None or self._switches

    @property
    def _switches(self) -> bool:
        return prefix_of(self.model) is not None or hasattr(self.model, "disable_adapter")

    @contextlib.contextmanager
    def base(self) -> Iterator[Any]:
        """The base model: inside the block the adapter is off. A second model is loaded on first use, and kept.

        Raises:
            MezoError: there is no base.
        """
        if (prefix := prefix_of(self.model)) is not None:
            with prefix.off():
                yield self.model
        elif self._switches:
            with self.model.disable_adapter():
                yield self.model
        elif self.load_base is not None:
            self._base = self._base or self.load_base()
            yield self._base
        else:
            raise MezoError(
                f"{self.name}: a model without an adapter has no base to compare with: give a RUN"
            )


def open_tuned(
    target: str,
    *,
    adapter: Path | None = None,
    dtype: str | None = None,
    device: str = "auto",
    chat_template: str | None = None,
    note: Callable[[str], None] | None = None,
) -> TunedModel:
    """Load what a run made, or a model.

    Args:
        target: a RUN folder, an adapter's folder, a model's folder, a hub id, or "smollm2-135m".
        adapter: a peft adapter to put on a model.
        dtype: of the weights; by default the run's, or float32.
        device: "auto", "cpu", "cuda" or "cuda:N".
        chat_template: a name or a Jinja file, in place of the tokenizer's or the run's own.
        note: called for slow things, such as the first fetch of the embedded model.

    Returns:
        The model. Of a run with an adapter, `base` turns the adapter off.

    Raises:
        MezoError: there is no such run or model, the adapter does not fit, or the model cannot write text.

    Example:
        >>> from mezo.runs.outputs.tuned import open_tuned
        >>> open_tuned("./my-model").has_base
        False
    """
    name, base, quantize, of_base = str(target), None, None, None
    stop, prefill = (), ""
    if is_run(target):
        run = FinishedRun.open(Path(os.path.expanduser(target)))
        dtype, chat_template = dtype or run.dtype, chat_template or run.chat_template
        if run.is_adapter and adapter is not None:
            raise MezoError(
                f"{target}: this run has an adapter of its own: to try another, give the base model and that adapter"
            )
        of_base, stop, prefill = run.quantize, run.stop, run.prefill
        quantize = run.quantize if run.is_adapter else None  # a model that was saved says it itself
        target, adapter = (run.base, run.weights) if run.is_adapter else (str(run.weights), adapter)
        base = None if run.is_adapter or adapter else run.base
    elif (
        adapter is None and (path := Path(os.path.expanduser(target))).is_dir() and (path / CONFIG).is_file()
    ):
        target, adapter = _base_of(path), path
    dtype = dtype or "float32"
    loaded = load(target, dtype, device, note=note, quantize=quantize)
    check_writes(loaded)
    with_chat_template(loaded.tokenizer, chat_template)
    model = loaded.model if adapter is None else with_adapter(loaded.model, adapter)
    load_base = None if base is None else lambda: load(base, dtype, device, note=note, quantize=of_base).model
    return TunedModel(model, loaded.tokenizer, name, load_base, stop, prefill)


def check_writes(loaded: LoadedModel) -> None:
    """Raises MezoError for a model that cannot write text."""
    if loaded.kind != "causal":
        raise MezoError(
            f"{loaded.name}: a masked language model, which cannot write text; `mezo eval` shows what it chooses"
        )


def _base_of(adapter: Path) -> str:
    """What an adapter on its own says of its base; the run around it says more exactly which that is."""
    if is_run(adapter.parent):
        return FinishedRun.open(adapter.parent).base
    base = settings_of(adapter).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise MezoError(
            f"{adapter / CONFIG}: base_model_name_or_path: expected the base model, found {json.dumps(base):.60}: "
            "give the model, and this folder with --adapter"
        )
    return base
