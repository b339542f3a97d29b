"""Tests marked `engine` that name an engine are skipped where it is not installed, and fail in CI."""

import os

import pytest
from tests.engines.serving.envs import STANDINS, VARIABLES, missing, python_of

# What the children of these tests inherit: the interpreters, and settings without which engines hang or phone home.
SETTINGS = {
    "SGLANG_USE_CPU_ENGINE": "1",
    "SGLANG_CPU_OMP_THREADS_BIND": "0|1",
    "VLLM_CPU_OMP_THREADS_BIND": "0|1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}


@pytest.fixture
def engine_env(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment in which `mezo` starts an engine: what is set already stays.

    Cores are left to the backends, which bind their workers themselves.
    """
    settle(monkeypatch)


def settle(patch: pytest.MonkeyPatch, engine: str = "") -> None:
    """Set that environment; for SGLang as engine also what its processes need without a GPU."""
    for name, variable in VARIABLES.items():
        if (python := python_of(name)) is not None:
            patch.setenv(variable, str(python))
    for name, value in SETTINGS.items():
        if name not in os.environ and not name.endswith("_BIND"):
            patch.setenv(name, value)
    if engine == "sglang":
        patch.setenv("PYTHONPATH", standins())


def need(engine: str) -> None:
    """Skip the test if the engine is not there; in CI, which builds them, that is a failure."""
    if (reason := missing(engine)) is None:
        return
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def standins() -> str:
    """PYTHONPATH for SGLang's processes on a machine without a GPU."""
    return os.pathsep.join(filter(None, [str(STANDINS), os.environ.get("PYTHONPATH", "")]))
