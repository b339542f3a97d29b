"""What torchrun tells a process it starts, in its environment; read without importing torch."""

import os


def launched() -> bool:
    """Whether torchrun, or whoever speaks as it does, has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def rank_of_environment() -> int:
    """This process's rank; 0 without torchrun."""
    return int(os.environ["RANK"]) if launched() else 0


def restarted() -> bool:
    """Whether torchrun has started this process anew, after one of them had ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
