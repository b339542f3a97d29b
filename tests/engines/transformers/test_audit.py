"""The audit of real batches: right ones pass, each broken shortcut is named, and no weight is changed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cli import toy
from tests.engines.perturb.test_forward import engine_for, examples

from mezo.algorithm import draw_of, mezo_step
from mezo.cli import main
from mezo.engines.perturb import layer_forwards
from mezo.engines.transformers import audit, batch
from mezo.engines.transformers import engine as transformers
from mezo.engines.transformers.audit import ShortcutFailed
from mezo.estimators import TwoPoint


def step_with(engine: Any) -> None:
    engine.audit_next()
    mezo_step(engine, TwoPoint(1e-2), [examples("causal")], draw_of(1, 0, 1), 1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_right_batches_pass_and_are_looked_at_once(
    tuning: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = engine_for("llama", tuning, dtype)
    seen = []
    monkeypatch.setattr(transformers, "audit", lambda *a: seen.append(audit.audit(*a)))
    engine.audit_next()
    for step in range(3):
        mezo_step(engine, TwoPoint(1e-2), [examples("causal")], draw_of(1, step, 1), 1e-3)
    assert len(seen) == 1


def forget_the_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed rows see one another."""
    whole = batch.on_device

    def careless(layout: Any, device: Any) -> Any:
        made = whole(layout, device)
        mask = None if made.mask is None else torch.ones_like(made.mask).tril()
        return type(made)(
            made.input_ids, made.position_ids, mask, made.keys, made.lengths, made.place, made.distinct
        )

    monkeypatch.setattr(batch, "on_device", careless)


def swap_the_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each probe's rows are multiplied by another probe's weights."""
    into = layer_forwards.linear_into

    def swapped(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: Any) -> None:
        into(out, x, weight * 1.01, bias)

    monkeypatch.setattr(layer_forwards, "linear_into", swapped)


@pytest.mark.parametrize(
    ("breaks", "names"), [(forget_the_mask, {"packing", "sharing"}), (swap_the_probes, {"all"})]
)
def test_what_is_wrong_ends_the_step_before_its_update(
    breaks: Any, names: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, weights = engine_for("llama")
    before = weights.checksum()
    breaks(monkeypatch)
    with pytest.raises(ShortcutFailed, match="--disable-shortcuts") as caught:
        step_with(engine)
    assert caught.value.shortcut in names
    assert "\n" not in str(caught.value)
    assert weights.checksum() == before


def test_keys_of_another_probe_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from mezo.engines.transformers.prefix_cache import SharedKeys

    engine, _ = engine_for("llama")
    engine.form = type(engine.form)(
        **{**{f: getattr(engine.form, f) for f in engine.form.__slots__}, "width": 4}
    )
    update = SharedKeys.update

    def stale(self: Any, keys: torch.Tensor, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        half = len(keys) // 2
        mixed = torch.cat([keys[:half], keys[:half]]) if half else keys
        return update(self, mixed, values, *args, **kwargs)

    monkeypatch.setattr(SharedKeys, "update", stale)
    with pytest.raises(ShortcutFailed, match="'sharing'"):
        step_with(engine)


def test_an_evaluation_is_audited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from mezo.scoring import pose

    engine, _ = engine_for("llama")
    forget_the_mask(monkeypatch)
    engine.audit_next()
    with pytest.raises(ShortcutFailed):
        engine.logprobs(pose(examples("causal")))


def test_a_run_ends_in_one_line_and_without_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong from the first step on (evaluations, which come before, are of another layout here)."""
    model, data = str(toy.model(tmp_path / "toy")), str(toy.reviews(tmp_path / "reviews"))
    arguments = ["train", "--model", model, "--data", data, "--steps", "2", "--batch-size", "6"]
    monkeypatch.setattr(audit, "_ROOM", 0.0)  # as if rounding explained nothing
    assert main([*arguments, "--output", str(tmp_path / "run")]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "error" in text]
    assert "does not hold for this model" in line
    assert main([*arguments, "--output", str(tmp_path / "off"), "--no-audit"]) == 0
