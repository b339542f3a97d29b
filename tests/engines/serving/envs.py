"""Where the Pythons of the serving engines are: `scripts/engine-env` builds them."""

import os
from pathlib import Path

VARIABLES = {"sglang": "MEZO_SGLANG_PYTHON", "vllm": "MEZO_VLLM_PYTHON"}
STANDINS = Path(__file__).parent / "standins"  # for the PYTHONPATH of SGLang's processes, without a GPU


def python_of(engine: str) -> Path | None:
    """The interpreter that has the engine, by its variable or where the script puts it; None: there is none."""
    named = os.environ.get(VARIABLES[engine])
    if named:
        return Path(named)
    envs = os.environ.get("MEZO_ENGINE_ENVS") or Path.home() / ".cache" / "mezo" / "engines"
    folder = Path(envs) / engine
    built = (folder / ".recipe").is_file()  # written when the installation is complete
    return folder / "bin" / "python" if built else None


def missing(engine: str) -> str | None:
    """Why tests of the engine cannot run here, or None."""
    python = python_of(engine)
    if python is None:
        return f"{engine} is not installed: scripts/engine-env {engine}, or name its Python in {VARIABLES[engine]}"
    if not python.is_file():
        return f"{VARIABLES[engine]}={python}: there is no such file"
    return None
