"""A chat endpoint on this machine that answers what a test tells it to, over real HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """One response. body: bytes as they are, or an object to be written as JSON."""

    body: Any = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0  # seconds
    drop: bool = False  # close the connection without a word


def said(text: str | None, finish_reason: str = "stop") -> Answer:
    """A completion with this content."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return Answer({"id": "1", "object": "chat.completion", "created": 1, "model": "toy", "choices": [choice]})


def refused(status: int, message: str) -> Answer:
    # so that the client's pauses between its tries are short
    return Answer({"error": {"message": message}}, status, {"retry-after-ms": "1"})


@dataclass
class Server:
    answers: list[Answer]  # in their order; the last one is given again and again
    requests: list[dict[str, Any]] = field(default_factory=list)  # {"path", "headers", "body"}
    base_url: str = ""


@contextmanager
def serving(*answers: Answer) -> Iterator[Server]:
    server = Server(list(answers))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            server.requests.append(
                {
                    "path": self.path,
                    "headers": {k.lower(): v for k, v in self.headers.items()},
                    "body": json.loads(body),
                }
            )
            answer = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
            time.sleep(answer.delay)
            if answer.drop:
                return
            data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            try:
                self.send_response(answer.status)
                for name, value in {"content-type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the client did not wait

        def log_message(self, format: str, *args: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.base_url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
