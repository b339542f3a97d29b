"""Real data and models that lie beside a checkout, for the tests that want them."""

import os
from pathlib import Path

import pytest


def shared(part: str) -> Path:
    """`part` of the folder MEZO_SHARED, or of ../shared beside the checkout; skips the test without it."""
    folder = Path(os.environ.get("MEZO_SHARED") or Path(__file__).parents[1].parent / "shared")
    if not (folder / part).exists():
        pytest.skip(f"needs {part} in {folder}; set MEZO_SHARED")
    return folder / part
