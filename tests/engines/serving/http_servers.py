"""SGLang's and vLLM's HTTP interfaces, as far as they are used, over a model of transformers in this process.

What they answer is computed (`inprocess.InProcess`); a cache keyed by an adapter's name included. Faults are
put in by path: see `Fault`.
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tests.engines.serving.inprocess import InProcess

from mezo.engines.serving.backend import Ask, EngineSpec
from mezo.errors import MezoError
from mezo.util.writing import Writing


@dataclass
class Fault:
    """What happens to requests for a path: a status; or "silence", "reset", "lost" (done, and no answer), "die"
    (and every later connection is refused), "restart" (without adapters), "nonsense" (an answer of no known form).
    """

    path: str
    what: int | str
    times: int = 1
    after: int = 0  # requests for the path that are served first


class Refusal(Exception):
    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


class ToyServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, kind: str, model: str, *, key: str | None = None, port: int = 0, lora: bool = True):
        super().__init__(("127.0.0.1", port), _Handler)
        self.kind, self.model, self.key, self.lora = kind, model, key, lora
        self.backend = InProcess(EngineSpec(model))
        self.faults: list[Fault] = []
        self.asked: list[str] = []  # paths
        self.headers: list[dict[str, str]] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def fault(self, path: str) -> str | int | None:
        with self.lock:
            for fault in self.faults:
                if fault.path == path and fault.times:
                    if fault.after:
                        fault.after -= 1
                        return None
                    fault.times -= 1
                    return fault.what
        return None

    def restart(self) -> None:
        self.backend = InProcess(EngineSpec(self.model))

    def stop(self) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""

    # ---------------------------------------------------------------- what they answer

    def answer(self, path: str, body: Any) -> Any:
        name = path.strip("/").replace("/", "_")
        method = getattr(self, f"{self.kind}_{name}", None)
        if method is None or ("lora_adapter" in path and not self.lora):
            raise Refusal(404, "Not Found")
        with self.lock:  # a model computes one thing at a time
            try:
                return method(body)
            except MezoError as error:
                raise Refusal(400, str(error)) from None

    def _load(self, body: Any) -> None:
        folder = Path(body["lora_path"])
        if not folder.is_dir():
            raise Refusal(400, f"no adapter in {folder}")
        config = json.loads((folder / "adapter_config.json").read_text())
        self.backend.load_adapter(body["lora_name"], load_file(folder / "adapter_model.safetensors"), config)

    def sglang_model_info(self, _: Any) -> Any:
        return {"model_path": self.model}

    def sglang_generate(self, body: Any) -> Any:
        rows, adapters = body["input_ids"], body.get("lora_path") or [None] * len(body["input_ids"])
        if not body.get("return_logprob"):
            sampling = body["sampling_params"]
            return [
                {"output_ids": self._written(Ask(tuple(row), adapter=adapter), one)}
                for row, adapter, one in zip(rows, adapters, sampling, strict=True)
            ]
        choices = body.get("token_ids_logprob") or [[] for _ in rows]
        return [
            self._meta(tuple(row), adapter, start, tuple(wanted))
            for row, adapter, start, wanted in zip(
                rows, adapters, body["logprob_start_len"], choices, strict=True
            )
        ]

    def _written(self, ask: Ask, one: Any) -> list[int]:
        named = {key: one[key] for key in ("top_p", "top_k") if key in one}
        named["ends"] = tuple(one["stop_token_ids"])
        writing = Writing(one["max_new_tokens"], tuple(one["stop"]), one["temperature"], **named)
        return list(self.backend.write([replace(ask, seed=one.get("sampling_seed", 0))], writing)[0])

    def _meta(self, row: tuple[int, ...], adapter: str | None, start: int, choices: tuple[int, ...]) -> Any:
        ask = Ask(row, adapter=adapter, choices=choices) if choices else Ask(row, start + 1, adapter)
        found = self.backend.score([ask])[0]
        meta: dict[str, Any] = {"prompt_tokens": len(row), "cached_tokens": found.cached_tokens}
        if choices:
            listed = [[value, token, None] for value, token in zip(found.logprobs, choices, strict=True)]
            meta["output_token_ids_logprobs"] = [listed]
        else:
            own = zip(found.logprobs, row[start + 1 :], strict=True)
            meta["input_token_logprobs"] = [[None, row[start], None], *([v, t, None] for v, t in own)]
        return {"meta_info": meta}

    def sglang_load_lora_adapter(self, body: Any) -> Any:
        self._load(body)
        return {"success": True}

    def sglang_unload_lora_adapter(self, body: Any) -> Any:
        self.backend.unload_adapter(body["lora_name"])
        return {"success": True}

    def sglang_flush_cache(self, _: Any) -> Any:
        self.backend.flush()
        return "Cache flushed."

    def vllm_version(self, _: Any) -> Any:
        return {"version": "0.0.0"}

    def vllm_v1_models(self, _: Any) -> Any:
        loaded = [{"id": name, "root": "x", "parent": "base"} for name in self.backend.names.loaded]
        return {"data": [{"id": "base", "root": self.model, "parent": None}, *loaded]}

    def vllm_v1_completions(self, body: Any) -> Any:
        adapter = None if body["model"] == "base" else body["model"]
        if adapter is not None and adapter not in self.backend.names.loaded:
            raise Refusal(404, f"The model `{adapter}` does not exist.")
        choices = [self._choice(n, tuple(row), adapter, body) for n, row in enumerate(body["prompt"])]
        return {"choices": choices[::-1], "usage": {}}  # their order is no promise

    def _choice(self, index: int, row: tuple[int, ...], adapter: str | None, body: Any) -> Any:
        if wanted := body.get("logprob_token_ids"):
            assert body["logprobs"]
            assert body["return_tokens_as_token_ids"]
            assert len(wanted) <= 128
            found = self.backend.score([Ask(row, adapter=adapter, choices=tuple(wanted))])[0].logprobs
            listed = {f"token_id:{token}": value for token, value in zip(wanted, found, strict=True)}
            return {"index": index, "text": "", "logprobs": {"top_logprobs": [listed]}}
        if body.get("prompt_logprobs") is not None:
            found = self.backend.score([Ask(row, 1, adapter)])[0].logprobs
            own = [{str(token): {"logprob": v}} for token, v in zip(row[1:], found, strict=True)]
            return {"index": index, "text": "", "prompt_logprobs": [None, *own]}
        asked = Ask(row, adapter=adapter, seed=body.get("seed", 0))
        named = {key: body[key] for key in ("top_p", "top_k") if key in body}
        named["ends"] = tuple(body["stop_token_ids"])
        writing = Writing(body["max_tokens"], tuple(body["stop"]), body["temperature"], **named)
        assert body["return_token_ids"]
        return {"index": index, "text": "", "token_ids": list(self.backend.write([asked], writing)[0])}

    def vllm_v1_load_lora_adapter(self, body: Any) -> Any:
        self._load(body)
        return f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def vllm_v1_unload_lora_adapter(self, body: Any) -> Any:
        self.backend.unload_adapter(body["lora_name"])
        return "Success"

    def vllm_reset_prefix_cache(self, _: Any) -> Any:
        self.backend.flush()
        return ""


class _Handler(BaseHTTPRequestHandler):
    server: ToyServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        self._serve(None)

    def do_POST(self) -> None:
        self._serve(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _serve(self, body: Any) -> None:
        server, path = self.server, self.path
        server.asked.append(path)
        server.headers.append(dict(self.headers))
        what = server.fault(path)
        if server.closing.is_set():
            what = "reset"
        if what == "die":
            threading.Thread(target=server.stop, daemon=True).start()
            server.closing.wait(5)
        if what == "restart":
            server.restart()
        if what == "silence":
            server.closing.wait(5)
        if what in ("reset", "silence", "die"):
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(what, int):
            self._send(what, {"error": {"message": f"injected {what}"}})
        elif server.key is not None and self.headers.get("Authorization") != f"Bearer {server.key}":
            self._send(
                401, {"error": f"Unauthorized: {self.headers.get('Authorization')}"}
            )  # it says too much
        else:
            self._answer(body, what)

    def _answer(self, body: Any, what: Any) -> None:
        try:
            found = self.server.answer(self.path, body)
        except Refusal as error:
            self._send(error.status, {"message": str(error)})
            return
        if what == "lost":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._send(200, {"something": "else"} if what == "nonsense" else found)

    def _send(self, status: int, found: Any) -> None:
        data = json.dumps(found).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """The tests' output is theirs."""


@contextmanager
def toy_servers(
    model: str, *kinds: str, faults: tuple[tuple[int, Fault], ...] = (), **options: Any
) -> Iterator[list[ToyServer]]:
    """Servers of these kinds ("sglang", "vllm"). faults: (number of the server, fault)."""
    servers = [ToyServer(kind, model, **options) for kind in kinds]
    for number, fault in faults:
        servers[number].faults.append(replace(fault))  # a fault counts down
    for server in servers:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield servers
    finally:
        for server in servers:
            if not server.closing.is_set():
                server.stop()
