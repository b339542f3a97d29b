"""W&B and MLflow whose server is not there, hangs, refuses or answers rubbish: no step waits, and the end not for long."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.ablation.chat_server import Answer, serving
from tests.engines.serving.trickling import trickling

pytestmark = pytest.mark.slow

KEY = "0123456789abcdef0123456789abcdef01234567"
RUN = """
import sys
from mezo.config import MeZOConfig
from mezo.sinks import background, logging_to
background.PATIENCE = 3.0
with logging_to([sys.argv[1]], run=sys.argv[2], config=MeZOConfig(), note=print) as logs:
    logs.on_start(0, 3, "")
print("over", flush=True)
"""


@contextmanager
def refusing() -> Iterator[str]:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    with serving(answer) as server:
        yield server.base_url.removesuffix("/v1")


SERVERS = {
    "not there": refusing,
    "hanging": lambda: trickling("nothing"),
    "trickling": lambda: trickling("headers"),
    "refusing": lambda: answering(Answer({"errors": [{"message": f"no such key: Bearer {KEY}"}]}, 401)),
    "of rubbish": lambda: answering(Answer(b"\x00\xff<html>")),
}


def logged(name: str, run: Path, environment: dict[str, str]) -> list[str]:
    """The lines that a program with this log says; it ends, though the server never answers."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "MLFLOW"))}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, name, str(run)],
        env={**kept, "HOME": str(run.parent), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert found.returncode == 0, found.stdout
    return found.stdout.splitlines()


@pytest.mark.parametrize("server", SERVERS)
def test_wandb(server: str, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with SERVERS[server]() as address:
        told = logged(
            "wandb",
            tmp_path / "run",
            {
                "WANDB_MODE": "online",
                "WANDB_API_KEY": KEY,
                "WANDB_BASE_URL": address,
                "WANDB_INIT_TIMEOUT": "6",
            },
        )
    assert told[-1] == "over"
    warned = [line for line in told if "the run goes on without it" in line]
    assert len(warned) == 1
    assert warned[0].startswith("warning: --log wandb: ")
    assert KEY not in "\n".join(told)
    # W&B's own log may repeat what a server said; none of the rest does
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.suffix != ".log"]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


@pytest.mark.parametrize("server", SERVERS)
def test_mlflow(server: str, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    with SERVERS[server]() as address:
        told = logged(
            "mlflow",
            tmp_path / "run",
            {
                "MLFLOW_TRACKING_URI": address.replace("//", f"//me:{KEY}@"),
                "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            },
        )
    assert told[-1] == "over"
    (warned,) = told[:-1]
    assert warned.startswith("warning: --log mlflow: ")
    assert warned.endswith("; the run goes on without it")
    assert KEY not in json.dumps(told)
