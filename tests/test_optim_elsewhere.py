"""mezo.MeZO where other libraries drive the loop: what works there, and one line where it cannot."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.resumed import base
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import mezo
from mezo.errors import MezoError
from mezo.weights.fingerprint import fingerprint


def test_transformers_trainer_is_answered_at_its_first_step(tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base(tmp_path / "base"))
    before = fingerprint(model.named_parameters())
    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        save_strategy="no", disable_tqdm=True, max_grad_norm=0.0,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, optimizers=(mezo.MeZO(model), None))  # type: ignore[arg-type]
    with pytest.raises(
        MezoError, match=r"use mezo\.MeZOTrainer\(model=\.\.\., train_dataset=\.\.\.\) in its place"
    ):
        trainer.train()
    assert fingerprint(model.named_parameters()) == before


def closure_of_lightning(model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> Any:
    """What its automatic optimization hands to step(): training_step, zero_grad, backward; returns the loss."""

    def closure() -> torch.Tensor:
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        return loss

    return closure


def test_a_closure_that_goes_backwards_is_answered() -> None:
    model = torch.nn.Linear(3, 2)
    before = fingerprint(model.named_parameters())
    optimizer = mezo.MeZO(model, lr=0.1)
    closure = closure_of_lightning(model, optimizer, torch.ones(4, 3))
    with pytest.raises(MezoError, match="set automatic_optimization = False and call opt"):
        optimizer.step(closure)
    assert fingerprint(model.named_parameters()) == before
    assert optimizer.steps_done == 0
    optimizer.step(lambda: model(torch.ones(4, 3)).square().mean())  # as its manual optimization calls it
    assert fingerprint(model.named_parameters()) != before


def test_another_error_of_the_closure_is_its_own() -> None:
    def closure() -> float:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        mezo.MeZO(torch.nn.Linear(3, 2)).step(closure)
