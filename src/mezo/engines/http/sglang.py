"""SGLang's HTTP interface, as `mezo.engines.sglang.backend` uses its Python one: a request for all rows of a wave."""

from collections.abc import Sequence

from mezo.engines.http.client import Client
from mezo.engines.http.server import Dialect, said, unexpected
from mezo.engines.serving.backend import Answer, Ask, Tokens
from mezo.engines.serving.requests import in_waves
from mezo.engines.sglang.rows import answer_of, scoring, tokens_of, written
from mezo.util.writing import Writing


def find(client: Client, seconds: float) -> "SGLangServer | None":
    """The server if it is SGLang. Its older versions know the second path alone."""
    for path in ("/model_info", "/get_model_info"):
        found = said(client, path, seconds)
        if isinstance(found, dict) and isinstance(found.get("model_path"), str):
            return SGLangServer(client, found["model_path"])
    return None


class SGLangServer(Dialect):
    kind = "SGLang"

    def __init__(self, client: Client, served: str):
        super().__init__(client)
        self.served = served

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        return in_waves(asks, self._score)

    def _score(self, asks: Sequence[Ask]) -> list[Answer]:
        body = scoring(asks)
        if any(ask.adapter for ask in asks):
            body["lora_path"] = [ask.adapter for ask in asks]
        found = self.client.once("POST", "/generate", body)
        try:
            return [answer_of(ask, row["meta_info"]) for ask, row in zip(asks, found, strict=True)]
        except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
            raise unexpected(self.client, "/generate", error) from error

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        if not asks:
            return []
        body = written(asks, writing)
        if any(ask.adapter for ask in asks):
            body["lora_path"] = [ask.adapter for ask in asks]
        found = self.client.once("POST", "/generate", body)
        try:
            return [tokens_of(row["output_ids"], writing) for _, row in zip(asks, found, strict=True)]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise unexpected(self.client, "/generate", error) from error

    def load(self, name: str, path: str) -> None:
        self.client.once("POST", "/load_lora_adapter", {"lora_name": name, "lora_path": path})

    def unload(self, name: str) -> None:
        self.client.once("POST", "/unload_lora_adapter", {"lora_name": name})

    def flush(self) -> None:
        self.client.once("POST", "/flush_cache", {})
