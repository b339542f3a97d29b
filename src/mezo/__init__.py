"""Fine-tuning of language models with forward passes only (MeZO, Malladi et al. 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezo.api import mezo_finetune
    from mezo.config import MeZOConfig
    from mezo.data import MeZODataset
    from mezo.errors import MezoError
    from mezo.optim import MeZO
    from mezo.resume.publishing import load_finetuned
    from mezo.training.trainer import MeZOTrainer, TrainResult

__version__ = "0.2.0"

_WHERE = {
    "MeZO": "mezo.optim",
    "MeZOConfig": "mezo.config",
    "MeZODataset": "mezo.data",
    "MeZOTrainer": "mezo.training.trainer",
    "MezoError": "mezo.errors",
    "TrainResult": "mezo.training.trainer",
    "load_finetuned": "mezo.resume.publishing",
    "mezo_finetune": "mezo.api",
}

__all__ = [
    "MeZO",
    "MeZOConfig",
    "MeZODataset",
    "MeZOTrainer",
    "MezoError",
    "TrainResult",
    "load_finetuned",
    "mezo_finetune",
]


def __getattr__(name: str) -> Any:
    """Import on first use: `mezo --help` should not wait for torch."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'mezo' has no attribute {name!r}")
