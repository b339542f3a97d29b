"""SGLang's and vLLM's own HTTP servers: LoRA through them as on transformers, and their deaths."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.engines.serving import runs
from tests.engines.serving.conftest import SETTINGS, need, standins
from tests.engines.serving.envs import python_of
from tests.tiny_models import same_files

from mezo.engines.http.backend import start
from mezo.engines.http.client import Client
from mezo.engines.http.server import identify
from mezo.engines.serving.backend import Ask, EngineSpec
from mezo.engines.serving.subprocess import EngineDied
from mezo.errors import MezoError
from mezo.events import Observer, StepRecord
from mezo.resume.replay import replay
from mezo.runs import trajectory
from mezo.util.writing import Writing

pytestmark = pytest.mark.engine

START_SECONDS = 420.0
COMMANDS = {
    "sglang": (
        "sglang.launch_server --model-path {model} --host 127.0.0.1 --port {port} --device cpu --dtype float32 "
        "--attention-backend torch_native --disable-cuda-graph --max-total-tokens 16384 --max-running-requests 64 "
        "--context-length 512 --skip-server-warmup --enable-lora --lora-backend torch_native --max-lora-rank 8 "
        "--lora-target-modules q_proj v_proj --max-loras-per-batch 3"
    ),
    "vllm": (
        "vllm.entrypoints.openai.api_server --model {model} --host 127.0.0.1 --port {port} --dtype float32 "
        "--enforce-eager --block-size 32 --max-model-len 512 --max-num-seqs 64 --max-num-batched-tokens 4096 "
        "--enable-lora --max-loras 3 --max-lora-rank 8 --lora-target-modules q_proj v_proj"
    ),
}
ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=["sglang", "vllm"])
def server(
    request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """(address, process) of a server that the module's tests share; the last of them kills it."""
    need(request.param)
    with served(request.param, model, tmp_path_factory.mktemp("log") / "log") as found:
        yield found


@contextmanager
def served(engine: str, model: Path, log: Path) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: value for name, value in SETTINGS.items() if not name.endswith("_BIND")}
    path = {"PYTHONPATH": standins()} if engine == "sglang" else {}
    command = [str(python_of(engine)), "-m", *COMMANDS[engine].format(model=model, port=port).split()]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**own, **os.environ, **path, **ENVIRONMENT},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(address, process, log)
        yield address, process
    finally:
        kill(process)


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    client, until = Client(address, timeout=20, retries=0), time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            client.trying(lambda: identify(client, 20))
            return
        except Exception:
            time.sleep(1)
    pytest.fail(f"no server: {log.read_text(errors='replace')[-3000:]}")


def kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_lora_walks_as_on_transformers(server: tuple[str, object], model: Path, tmp_path: Path) -> None:
    settings = {**runs.LORA, "num_steps": 5, "lora_rank": 4}
    here = runs.train(model, tmp_path / "here", **settings)
    there = runs.train(model, tmp_path / "there", **settings, engine="http", server=[server[0]])
    runs.assert_same_walk(here, there)
    again = replay(tmp_path / "there", output=tmp_path / "again")
    assert same_files(again, tmp_path / "there" / "adapter")


def test_a_row_s_own_tokens_and_candidates_agree(server: tuple[str, object], model: Path) -> None:
    """The two ways to ask: log p of a row's last token, and of that token as a candidate after the row."""
    row = tuple(range(4, 60))
    backend = start(EngineSpec(str(model), servers=(server[0],)), print)
    tokens, chosen = (backend.score([ask])[0] for ask in (Ask(row, 50), Ask(row[:-1], choices=(row[-1], 7))))
    assert len(tokens.logprobs) == 6
    assert tokens.logprobs[-1] == pytest.approx(chosen.logprobs[0], abs=2**-18)  # some units of 2^-21 near 6
    assert len(backend.write([Ask(row[:9]), Ask(row[:7])], Writing(4))) == 2
    backend.flush()
    with pytest.raises(MezoError):
        backend.score([Ask(tuple([5] * 2000), 1)])  # longer than the server takes: refused, not retried
    backend.close()


def test_a_server_that_is_killed_ends_the_run_with_its_trajectory(
    server: tuple[str, "subprocess.Popen[bytes]"], model: Path, tmp_path: Path
) -> None:
    address, process = server

    class Killer(Observer):
        def on_step(self, record: StepRecord) -> None:
            if record.step == 2:
                kill(process)

    settings = {**runs.LORA, "num_steps": 6, "engine": "http", "server": [address]}
    made = runs.trainer(model, tmp_path / "run", Killer(), **settings)
    with pytest.raises(EngineDied, match=r"no server is left .* saved up to the last whole step"):
        made.train()
    made.close()
    assert len(trajectory.read(tmp_path / "run" / "trajectory.mezo").records) == 3
