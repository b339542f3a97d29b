"""The embedded model's conversion, in a process of its own."""

from pathlib import Path

import pytest

from mezo.errors import MezoError
from mezo.models import smollm2


def test_the_process_that_converts_finds_python_s_own_modules(tmp_path: Path) -> None:
    """`mezo.types` is not Python's `types`: its folder must not be on that process's path."""
    (tmp_path / "no.gguf").write_bytes(b"no model")
    with pytest.raises(MezoError, match="cannot convert") as raised:
        smollm2._convert(tmp_path / "no.gguf", tmp_path / "made")
    assert "ImportError" not in str(raised.value)
