"""What a person can get wrong with running servers, and what must never be shown."""

import contextlib
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.serving.http_servers import Fault, toy_servers
from tests.tiny_models import tiny
from tests.toys import byte_tokenizer

from mezo.config import MeZOConfig
from mezo.data import MeZODataset
from mezo.engines.http import backend as http
from mezo.engines.http import client
from mezo.engines.http.client import KEY, checked_address
from mezo.engines.http.settings import check_model, hub_id, settings_of
from mezo.engines.http.share import at_once, shared_out
from mezo.engines.serving.backend import Ask, EngineSpec
from mezo.engines.serving.subprocess import EngineDied
from mezo.errors import MezoError
from mezo.events import Observer
from mezo.tasks import task_for
from mezo.training.trainer import MeZOTrainer
from mezo.util.writing import Writing

SECRET = "sk-0123456789abcdef"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny("llama-tied").save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)
    monkeypatch.delenv(KEY, raising=False)


def spec(model: str, *addresses: str, **options: Any) -> EngineSpec:
    return EngineSpec(model, servers=addresses, server_args=options)


def start(spec: EngineSpec) -> http.Http:
    return http.start(spec, lambda text: None)


def test_another_model_is_refused(model: str, tmp_path: Path) -> None:
    with toy_servers(model, "sglang", "vllm") as servers:
        for server in servers:
            with pytest.raises(MezoError, match=f"^{server.address} serves .*model_there$"):
                start(spec(str(tmp_path), server.address))
            start(spec(str(tmp_path), server.address, model_there=model)).close()


def test_a_hub_id_is_known_by_its_snapshot() -> None:
    folder = "/cache/models--org--name-1.5/snapshots/0123abcd"
    assert hub_id(folder) == "org/name-1.5"
    check_model("http://a", "org/name-1.5", folder, None)
    with pytest.raises(MezoError, match=r"the model to tune is 'org/name-1\.5'"):
        check_model("http://a", "org/name-2", folder, None)


def test_a_key_is_sent_and_never_shown(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with toy_servers(model, "sglang", key="another") as servers:
        with pytest.raises(MezoError, match=f"HTTP 401 .*; set {KEY} to the server's API key"):
            start(spec(model, servers[0].address))
        monkeypatch.setenv(KEY, SECRET)
        with pytest.raises(MezoError, match=rf"HTTP 401 .*Bearer \*\*\*; is {KEY} right\?") as caught:
            start(spec(model, servers[0].address))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
    with toy_servers(model, "vllm", key=SECRET) as servers:
        config = MeZOConfig.build(
            model=model,
            task="prompt-completion",
            engine="http",
            server=[servers[0].address],
            server_args={"adapter_folder": str(tmp_path / "adapters")},
            tuning="lora",
            num_steps=2,
            batch_size=2,
            max_length=64,
        )
        rows = MeZODataset(
            [{"prompt": "The team", "completion": " web"}] * 2, task=task_for(config.task, None, None)
        )
        made = MeZOTrainer(config, train=rows, output=run, artifacts=False, observer=Observer())
        made.train()
        made.close()
        assert all(headers["Authorization"] == f"Bearer {SECRET}" for headers in servers[0].headers)
    written = [path for path in run.rglob("*") if path.is_file()]
    assert written
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err


def test_a_key_that_no_header_can_hold(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, f"{SECRET}\nX: y")
    with pytest.raises(MezoError, match=f"{KEY}: expected printable ASCII") as caught:
        start(spec(model, "http://127.0.0.1:9"))
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_refusal_is_not_asked_again(model: str) -> None:
    with toy_servers(model, "sglang", faults=((0, Fault("/model_info", 403, times=9)),)) as servers:
        with pytest.raises(MezoError, match="HTTP 403 for /model_info: injected 403"):
            start(spec(model, servers[0].address))
        assert servers[0].asked == ["/model_info"]


def test_a_redirect_is_not_followed(model: str) -> None:
    fault = Fault("/model_info", 307)
    with (
        toy_servers(model, "sglang", faults=((0, fault),)) as servers,
        pytest.raises(MezoError, match="HTTP 307"),
    ):
        start(spec(model, servers[0].address))


def test_something_else_at_the_address(model: str) -> None:
    said = "expected an SGLang or a vLLM server, found something else"
    with toy_servers(model, "other") as servers, pytest.raises(MezoError, match=said):
        start(spec(model, servers[0].address))


def test_nothing_at_the_addresses(model: str) -> None:
    with toy_servers(model, "sglang", "sglang") as servers:
        addresses = [server.address for server in servers]
    with pytest.raises(EngineDied, match="no server is left") as caught:
        start(spec(model, *addresses))
    assert all(address in str(caught.value) for address in addresses)


@pytest.mark.parametrize("dialect", ["sglang", "vllm"])
def test_an_answer_of_no_known_form(model: str, dialect: str) -> None:
    path = {"sglang": "/generate", "vllm": "/v1/completions"}[dialect]
    with toy_servers(model, dialect, faults=((0, Fault(path, "nonsense", times=2)),)) as servers:
        backend = start(spec(model, servers[0].address))
        for call in (
            lambda: backend.score([Ask((1, 5, 6), 1)]),
            lambda: backend.write([Ask((1, 5))], Writing(2, ("\n",))),
        ):
            with pytest.raises(MezoError, match=f"the answer to {path} is not of the form"):
                call()
        backend.close()


@pytest.mark.parametrize("dialect", ["sglang", "vllm"])
def test_answers_are_those_of_the_model(model: str, dialect: str) -> None:
    """More candidates than one request of vLLM's may name, too."""
    asks = [Ask((1, 5, 6, 7), 2), Ask((1, 9), choices=tuple(range(150))), Ask((1, 8, 8), 1)]
    with toy_servers(model, dialect) as servers:
        backend = start(spec(model, servers[0].address))
        found = backend.score(asks)
        expected = servers[0].backend.score(asks)
        assert [answer.logprobs for answer in found] == [answer.logprobs for answer in expected]
        assert backend.score([]) == backend.write([], Writing(4)) == []
        backend.flush()
        assert not servers[0].backend.cache
        with pytest.raises(MezoError, match="engine http tunes LoRA alone"):
            backend.call_workers("load", {})
        backend.close()


def test_a_server_without_lora_says_how_to_start_it(model: str, tmp_path: Path) -> None:
    with toy_servers(model, "vllm", lora=False) as servers:
        backend = start(spec(model, servers[0].address, adapter_folder=str(tmp_path)))
        with pytest.raises(MezoError, match=r"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True .*adapter_folder"):
            backend.load_adapter("mine", {"a": torch.zeros(1)}, {})
        backend.close()


def test_a_folder_that_servers_know_by_another_path(model: str, tmp_path: Path) -> None:
    here = tmp_path / "here"
    with toy_servers(model, "sglang") as servers:
        options = {"adapter_folder": str(here), "adapter_folder_there": "/not/mounted"}
        backend = start(spec(model, servers[0].address, **options))
        with pytest.raises(MezoError, match="no adapter in /not/mounted/mine"):
            backend.load_adapter("mine", {"a": torch.zeros(1)}, {})
        backend.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeuot": 3}, "no option 'timeuot'; did you mean 'timeout'"),
        ({"timeout": 0}, "server_args timeout=0 of engine http: "),
        ({"timeout": float("inf")}, "server_args timeout=inf"),
        ({"retries": "many"}, "server_args retries='many' of engine http: "),
        ({"adapter_folder": "here"}, "expected an absolute path"),
        ({"adapter_folder_there": "/there"}, "set that too"),
    ],
)
def test_options_that_are_wrong(given: dict[str, Any], said: str) -> None:
    with pytest.raises(MezoError, match=said):
        settings_of(given)


@pytest.mark.parametrize(
    "address", ["localhost:30000", "ftp://a", "http://", "http://a:x", "http://a:99999", ""]
)
def test_addresses_that_are_wrong(address: str) -> None:
    with pytest.raises(MezoError, match="expected http://HOST:PORT"):
        checked_address(address)


@pytest.mark.parametrize("address", [f"http://me:{SECRET}@host:1", f"https://host?key={SECRET}"])
def test_secrets_in_an_address_are_refused_unshown(address: str) -> None:
    with pytest.raises(MezoError, match="the address of host has a name, a password or a query") as caught:
        checked_address(address)
    assert SECRET not in str(caught.value)


@given(st.text())
def test_any_address_is_taken_or_refused(text: str) -> None:
    with contextlib.suppress(MezoError):
        assert checked_address(text) == text


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_every_question_goes_to_one_server_and_pairs_stay_together(rows: list[int], servers: int) -> None:
    """rows: of each direction, whose two probes are asked the same."""
    asks = [
        Ask((row, row), 1, f"{direction}{sign}")
        for direction, many in enumerate(rows)
        for sign in "+-"
        for row in range(many)
    ]
    shares = shared_out(asks, servers)
    assert len(shares) == servers
    assert sorted(n for share in shares for n in share) == list(range(len(asks)))
    for share in shares:
        asked = {(asks[n].adapter, asks[n].tokens) for n in share}
        flipped = {(str(a).translate(str.maketrans("+-", "-+")), tokens) for a, tokens in asked}
        assert asked == flipped
    if len(rows) >= servers and min(rows) > 0:
        assert all(shares)


def test_calls_at_once_keep_their_order_and_their_errors() -> None:
    def fail() -> int:
        raise ValueError("no")

    found = at_once([lambda: 1, fail, *(lambda n=n: n for n in range(40))], most=3)
    assert found[0] == 1
    assert isinstance(found[1], ValueError)
    assert found[2:] == list(range(40))
