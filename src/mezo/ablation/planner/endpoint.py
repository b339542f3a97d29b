"""The language models that are asked: one behind an OpenAI-compatible endpoint, or one in this process."""

from functools import cached_property
from typing import Any, Protocol

from mezo.errors import MezoError
from mezo.util.endpoint import Endpoint, Messages

_END = "</predictions>"  # of a plan


class Answers(Protocol):
    """Anything that answers messages: an Endpoint, or a model in this process."""

    def ask(self, messages: Messages) -> str: ...


class LocalModel:
    """A causal language model in this process, loaded at its first answer."""

    def __init__(self, model: str, *, max_tokens: int = 2048):
        """max_tokens: of an answer."""
        self.name, self.max_tokens = model, max_tokens

    @cached_property
    def loaded(self) -> Any:
        """The model and its tokenizer. Raises MezoError if the model does not exist or writes no text."""
        from mezo.models.load import load

        loaded = load(self.name, "float32", "auto")
        if loaded.kind != "causal":
            raise MezoError(f"{self.name}: a masked language model writes no text; choose a causal one")
        return loaded

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.loaded.tokenizer(text, add_special_tokens=False).input_ids)

    def room(self) -> int | None:
        """The most tokens of the messages next to an answer; None if the model sets no bound."""
        positions = getattr(self.loaded.model.config.get_text_config(), "max_position_embeddings", None)
        return None if positions is None else positions - self.max_tokens

    def ask(self, messages: Messages) -> str:
        """The greedy answer, up to the end of a plan. Raises MezoError if it is empty."""
        from mezo.build.setup import engine_at
        from mezo.objectives import objective_named
        from mezo.scoring import Example
        from mezo.util.writing import Writing

        engine = engine_at(self.loaded, objective_named("answer-ce"), writing=Writing(self.max_tokens))
        prompt = tuple(self._tokens(messages))
        room = self.room()
        if room is not None and len(prompt) > room:
            raise MezoError(
                f"{self.name}: the messages have {len(prompt)} tokens, and {room} fit next to an answer of"
                f" {self.max_tokens}; lower --paper-tokens or --max-tokens"
            )
        example = Example(prompt, ((0,),), 0)
        text = engine.generate([example], max_new_tokens=self.max_tokens, stop=_END)[0]
        if not text:
            raise MezoError(f"{self.name}: the model answered nothing")
        return f"{text}\n{_END}\n" if "<predictions>" in text else text

    def _tokens(self, messages: Messages) -> list[int]:
        """The messages in the model's chat template; without a template as plain text."""
        from mezo.engines.transformers.reply import chat_tokens

        tokenizer = self.loaded.tokenizer
        if getattr(tokenizer, "chat_template", None):
            return chat_tokens(tokenizer, messages)
        return tokenizer("\n\n".join(message["content"] for message in messages) + "\n\n").input_ids


def model_for(name: str, base_url: str | None) -> Answers:
    """The model behind an endpoint, or without a URL in this process."""
    return LocalModel(name, max_tokens=1024) if base_url is None else Endpoint(name, base_url)
