"""Which engine a config names, and whether it supports the config: checked before anything is loaded or started."""

import importlib.util
import os
import sys
from typing import Literal, NamedTuple

from mezo.combinations import check_combination
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.util.plugins import find

TRANSFORMERS = "transformers"


class Serving(NamedTuple):
    """An engine that serves: `engines/NAME/backend.py` has its `Backend` and a function `start`."""

    package: str | None  # what must be installed; None: nothing
    full: bool  # whether all parameters can be tuned on it
    both: bool = False  # whether it takes adapters over weights that are tuned in its workers


ENGINES: dict[str, Serving | None] = {  # None: in this process
    "transformers": None,
    "sglang": Serving("sglang", full=True, both=True),
    "vllm": Serving("vllm", full=True, both=True),
    "http": Serving(None, full=False),
}
SERVING = {name: kind for name, kind in ENGINES.items() if kind is not None}

# memory mode -> where theta is kept while a worker computes at a probe (`engines.workers.restore`)
KEEP: dict[str, Literal["auto", "walk"]] = {"materialize": "auto", "regenerate": "walk"}


def is_served(config: MeZOConfig) -> bool:
    """Whether the config's engine holds the model outside of this process."""
    return config.engine != TRANSFORMERS


def serving(name: str) -> Serving:
    """An engine that serves, by name: one of the table, or a plugin's function `start`. Raises MezoError for another."""
    if (own := ENGINES.get(name)) is not None:
        return own
    return Serving(None, full=bool(getattr(find("engine", name, {})[0], "tunes_all_weights", False)))


def check(config: MeZOConfig) -> None:
    """Raises MezoError for an unknown engine, or one that does not support this config."""
    find("engine", config.engine, ENGINES)
    if not is_served(config):
        _check_plain(config)
        return
    kind, name = serving(config.engine), config.engine
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise MezoError(
            f"engine {name!r} starts its own processes (--tp), and this run is one of several: start it without "
            "torchrun"
        )
    check_combination(config)
    if config.tuning == "full" and not kind.full:
        raise MezoError(
            f"engine {name!r} cannot tune tuning='full'; it tunes lora: use that, or --engine transformers"
        )
    if bool(config.server) != (name == "http") and name in ENGINES:
        raise MezoError(
            "engine 'http' needs the addresses of running servers: --server http://HOST:PORT[,...]"
            if name == "http"
            else f"--server is for engine http, and the engine is {name!r}: use --engine http, or leave it out"
        )
    _check_installed(name, kind.package)


def _check_plain(config: MeZOConfig) -> None:
    for field, flag in (
        ("server", "--server"),
        ("server_args", "--server-args"),
    ):
        value = getattr(config, field)
        if value != MeZOConfig.model_fields[field].default:
            raise MezoError(
                f"{field}={value!r} ({flag}) is for serving engines ({', '.join(SERVING)}), and the engine is "
                "'transformers': choose one with --engine, or leave it out"
            )


def _check_installed(name: str, package: str | None) -> None:
    variable = f"MEZO_{name.upper()}_PYTHON"
    if package is None or os.environ.get(variable):
        return
    if importlib.util.find_spec(package) is None:
        raise MezoError(
            f"engine {name!r} needs the package {package}, which is not installed for {sys.executable}: install it "
            f"into an environment of its own as docs/engines.md says, and set {variable} to that one's python"
        )
