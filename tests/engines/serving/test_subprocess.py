"""An engine in another process: calls reach it, and its death is an error in bounded time."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import Ask, EngineSpec, LoraSpec
from mezo.errors import MezoError
from mezo.util.writing import Writing

ENGINE = """
import os, subprocess, sys, time
from mezo.engines.serving.backend import Answer, Backend, Names
from mezo.errors import MezoError

class Echo(Backend):
    def __init__(self, spec):
        self.spec, self.adapters = spec, {}
        self.worker = subprocess.Popen(["sleep", "600"])

    def score(self, asks):
        return [Answer((-1.0,) * len(ask.choices), len(ask.tokens), 0) for ask in asks]

    def write(self, asks, writing):
        (stop,) = writing.stop
        if stop == "hang": time.sleep(600)
        if stop == "die": print("RuntimeError: out of memory", flush=True); os._exit(3)
        if stop == "refuse": raise MezoError("no such thing")
        if stop == "raise": raise KeyError("inner")
        return [[self.spec.lora.rank, *a.tokens, len(a.adapter or ""), self.worker.pid] for a in asks]

    def load_adapter(self, name, tensors, config):
        if name == "refused": raise MezoError("no place for refused")
        self.adapters[name] = tensors, config

    def unload_adapter(self, name):
        del self.adapters[name]

    def call_workers(self, operation, arguments):
        found = {"operation": operation, **arguments, "sum": float(self.adapters["a"][0]["x"].sum())}
        return [found | {"held": sorted(self.adapters)} if operation == "probe" and not arguments else found]

    def flush(self): pass
    def close(self): pass

def start(spec):
    if spec.model == "none": raise MezoError("no model none")
    return Echo(spec)
"""
SPEC = EngineSpec("some", lora=LoraSpec(4, 2, ("q_proj",)), server_args={"a": [1]})


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Hosted]:
    """A child that holds a toy engine, which is started by a module of its own beside mezo's."""
    for_child(tmp_path, monkeypatch)
    hosted = subprocess.start("echo", SPEC)
    yield hosted
    hosted.close()


def for_child(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mezo.engines.echo.backend`, in the children alone."""
    (folder / "echo").mkdir()
    (folder / "echo" / "backend.py").write_text(ENGINE)
    (folder / "sitecustomize.py").write_text(
        f"import mezo.engines; mezo.engines.__path__.append({str(folder)!r})"
    )
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    monkeypatch.setenv("PYTHONPATH", path)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within ten seconds."""
    until = time.monotonic() + 10
    while not (found := holds()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def test_calls_and_answers_cross_over_and_a_name_is_loaded_once(echo: subprocess.Hosted) -> None:
    answers = echo.score([Ask((1, 2), choices=(5, 6)), Ask((1,), choices=(7,))])
    assert [a.logprobs for a in answers] == [(-1.0, -1.0), (-1.0,)]
    echo.load_adapter("a", {"x": torch.ones(3, dtype=torch.bfloat16)}, {"r": 4})
    assert echo.write([Ask((1, 2), adapter="a")], Writing(5, ("\n",)))[0][:4] == (4, 1, 2, 1)
    assert echo.call_workers("probe", {"seed": 2**63}) == [{"operation": "probe", "seed": 2**63, "sum": 3.0}]
    with pytest.raises(MezoError, match=r"^echo: no such thing$"):
        echo.write([Ask((1,))], Writing(5, ("refuse",)))
    with pytest.raises(MezoError, match=r"^echo: KeyError: 'inner'$"):
        echo.write([Ask((1,))], Writing(5, ("raise",)))
    assert echo.write([Ask((1,))], Writing(5, ("\n",))), "it goes on after what it refused"
    with pytest.raises(MezoError, match="no adapter 'b' is loaded in this engine; it has: a"):
        echo.score([Ask((1, 2), 1, "b")])
    echo.unload_adapter("a")
    with pytest.raises(MezoError, match="adapter 'a' was loaded into this engine before"):
        echo.load_adapter("a", {}, {})
    with pytest.raises(MezoError, match="no adapter 'a' is loaded"):
        echo.score([Ask((1, 2), 1, "a")])


def test_several_adapters_cross_in_one_message_and_all_or_none_are_held(echo: subprocess.Hosted) -> None:
    asked: list[str] = []
    ask = echo.ask

    def seen(call: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(call)
        return ask(call, *args, **kwargs)

    echo.ask = seen
    adapters = {name: {"x": torch.full((3,), n), "y/z": torch.ones(1)} for n, name in enumerate("bac", 1)}
    adapters = {name: {key: t.float() for key, t in own.items()} for name, own in adapters.items()}
    echo.load_adapters(adapters, {"r": 4})
    assert asked == ["load_adapters"]
    assert echo.call_workers("probe", {})[0]["sum"] == 2 * 3  # that of "a"
    echo.unload_adapters(["b", "c"])
    assert echo.names.loaded == {"a"}
    with pytest.raises(MezoError, match="no place for refused"):
        echo.load_adapters({"d": {}, "refused": {}, "e": {}}, {})
    assert echo.names.loaded == {"a"}
    assert echo.call_workers("probe", {})[0]["held"] == ["a"]


def test_its_death_is_told_with_its_last_words(echo: subprocess.Hosted) -> None:
    worker = echo.write([Ask((1,))], Writing(5, ("\n",)))[0][-1]
    with pytest.raises(
        subprocess.EngineDied, match=r"ended during 'write'.*RuntimeError: out of memory"
    ) as told:
        echo.write([Ask((1,))], Writing(5, ("die",)))
    assert soon(lambda: gone(worker)), "what it started ends with it"
    with pytest.raises(subprocess.EngineDied) as again:
        echo.flush()
    assert str(again.value) == str(told.value)


@pytest.mark.slow
def test_silence_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_child(tmp_path, monkeypatch)
    monkeypatch.setenv("MEZO_ENGINE_SECONDS", "2")
    hosted = subprocess.start("echo", SPEC)
    worker = hosted.write([Ask((1,))], Writing(5, ("\n",)))[0][-1]
    with pytest.raises(subprocess.EngineDied, match="gave no answer to 'write' for 2 seconds"):
        hosted.write([Ask((1,))], Writing(5, ("hang",)))
    assert soon(lambda: gone(worker))


@pytest.mark.slow
def test_a_killed_child_is_noticed(echo: subprocess.Hosted) -> None:
    os.kill(echo._child.pid, signal.SIGKILL)
    with pytest.raises(subprocess.EngineDied, match="ended during"):
        echo.flush()


@pytest.mark.slow
def test_an_engine_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for_child(tmp_path, monkeypatch)
    with pytest.raises(MezoError, match=r"^echo: no model none$"):
        subprocess.start("echo", EngineSpec("none"))
    with pytest.raises(MezoError, match="no Python interpreter '/nowhere/python'"):
        subprocess.start("echo", SPEC, python="/nowhere/python")
