"""The part of the hub's HTTP interface that making a repository and uploading a folder use, in this process."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeHub:
    """Repositories in memory. Only the requests below are answered; any other is a 404, and is in `unknown`."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, Any]] = {}  # visibility, files
        self.blobs: dict[str, bytes] = {}  # of large files, by sha256
        self.unknown: list[str] = []
        self.address = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if method == "PUT" and path.startswith("/blobs/"):
            assert hashlib.sha256(body).hexdigest() == path.removeprefix("/blobs/")
            self.blobs[path.removeprefix("/blobs/")] = body
            return 200, {}
        if method == "POST" and path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if name in self.repositories:
                return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
            self.repositories[name] = {"visibility": asked.get("visibility", "public"), "files": {}}
            return 200, {"url": f"{self.address}/{name}", "id": name}
        if method == "POST" and path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        for name, repository in self.repositories.items():
            if method == "GET" and path == f"/api/models/{name}":
                return 200, {"id": name, "private": repository["visibility"] == "private", "siblings": []}
            if method == "POST" and path == f"/api/models/{name}/preupload/main":
                return 200, {"files": [self._mode(file) for file in json.loads(body)["files"]]}
            if method == "POST" and path == f"/{name}.git/info/lfs/objects/batch":
                return 200, {
                    "transfer": "basic",
                    "objects": [self._place(o) for o in json.loads(body)["objects"]],
                }
            if method == "POST" and path == f"/api/models/{name}/commit/main":
                repository["files"] |= self._committed(body)
                return 200, {"commitUrl": f"{self.address}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}
        self.unknown.append(f"{method} {path}")
        return 404, {"error": "not found"}

    @staticmethod
    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "actions": {"upload": {"href": f"{self.address}/blobs/{asked['oid']}"}}}

    def _committed(self, body: bytes) -> dict[str, bytes]:
        files = {}
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "lfsFile":
                files[line["value"]["path"]] = self.blobs[line["value"]["oid"]]
        return files


@contextmanager
def running(token: str) -> Iterator[FakeHub]:
    """A hub that takes this token."""
    hub = FakeHub(token)

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            upload = self.path.startswith("/blobs/")  # its address is its own permission, as on the hub
            if upload or self.headers.get("Authorization") == f"Bearer {token}":
                status, found = hub.answer(self.command, self.path, body)
            else:
                status, found = 401, {"error": "Invalid username or password."}
            text = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_HEAD = _any

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
