"""A language model behind an OpenAI-compatible endpoint as the judge of what was written."""

import contextlib
import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mezo.errors import MezoError
from mezo.objectives.rewards.base import place
from mezo.util.endpoint import Endpoint, Messages
from mezo.util.foreign import read_text

_PROMPT = """You judge answers of a language model. Here is what it was asked, as JSON:

{row}

It answered:

{output}

How good is the answer? Reply with a JSON object alone: {{"score": N}}, N a number from 0 (useless) to {most} (perfect)."""
_AGAIN = 'That was no JSON object {"score": N} with N from 0 to %s. Reply with the object alone.'
_PLACE = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_OBJECT = re.compile(r"\{[^{}]*\}")
_CACHE_MOST = 1 << 28  # bytes of a file of replies


@dataclass(eq=False)
class JudgeReward:
    """Asks the model for a score of each output, and divides it by the highest one: a reward from 0 to 1.

    The key comes from the environment (OPENAI_API_KEY). A reply is kept by the content of what was asked, so equal outputs are
    asked for once. A reply without a score is asked for once more.

    Args:
        model: its name at the endpoint.
        base_url: of the endpoint, such as http://localhost:8000/v1.
        prompt: a text, or a file ending in .txt, with {output} in it; also {row}, the row as JSON, {field} for a field of
            it, and {most}. {{ and }} are braces.
        most: the highest score.
        timeout, retries: seconds for one reply; tries after rate limits, errors of the server and lost connections.
        at_once: requests under way at a time.
        cache: a file that replies are kept in, beside memory.
        price: dollars for a million tokens, of what is sent and what is received: (0.15, 0.6).

    Raises:
        MezoError: a setting is missing or wrong; and by a call, which names the row: no reply, or one without a score.

    Example:
        >>> from mezo.objectives.rewards import JudgeReward
        >>> judge = JudgeReward(model="qwen", base_url="http://localhost:8000/v1", price=(0.15, 0.6))
        >>> judge.told()  # judge([row], [output]) asks the endpoint
        'judge qwen: 0 requests, 0 tokens sent and 0 received, 0.0000 dollars; 0 replies were known'
    """

    model: str = ""
    base_url: str = ""
    prompt: str = _PROMPT
    most: float = 10
    timeout: float = 60.0
    retries: int = 4
    at_once: int = 8
    cache: str | None = None
    price: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        self.template = _template(self.prompt)
        for name, least in (("most", 0), ("timeout", 0), ("at_once", 0), ("retries", -1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < 1e6:
                raise MezoError(
                    f"reward 'judge': expected {name} to be a number above {least}, found {value!r:.40}"
                )
        if not (self.model and self.base_url):
            raise MezoError(
                "reward 'judge': expected judge(model='NAME', base_url='http://HOST/v1'), found it without"
            )
        if self.price is not None and (
            len(self.price) != 2
            or not all(isinstance(each, int | float) and each >= 0 for each in self.price)
        ):
            raise MezoError(
                f"reward 'judge': expected price=(dollars sent, dollars received) for a million tokens, found {self.price!r:.60}"
            )
        self.endpoint = Endpoint(
            self.model,
            self.base_url,
            timeout=self.timeout,
            retries=int(self.retries),
            options=("base_url", "timeout", "max_tokens"),
            extra="rewards",
            count=self._count,
        )
        self.requests = self.sent = self.received = self.kept = 0
        self._lock = threading.Lock()
        self._cache = None if self.cache is None else Path(self.cache).expanduser()
        self._scores = {} if self._cache is None else _read(self._cache)

    def __call__(self, rows: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> list[float]:
        """A reward for each output."""
        asked = [self._messages(row, output) for row, output in zip(rows, outputs, strict=True)]
        keys = [self._key(messages) for messages in asked]
        new = {key: n for n, key in reversed(list(enumerate(keys))) if key not in self._scores}
        self.kept += len(keys) - len(new)
        with ThreadPoolExecutor(int(self.at_once), "mezo-judge") as pool:
            jobs = {n: pool.submit(self._score, asked[n]) for n in sorted(new.values())}
            try:
                for n, job in jobs.items():
                    self._keep(keys[n], self._named(job.result, rows[n], outputs[n]))
            except BaseException:
                for n, job in jobs.items():  # what has come is kept: it was paid for
                    if not job.cancel() and job.exception() is None:
                        self._keep(keys[n], job.result())
                raise
        return [self._scores[key] / self.most for key in keys]

    def told(self) -> str:
        """What was asked so far, and what it cost."""
        cost = ""
        if self.price is not None:
            dollars = (self.sent * self.price[0] + self.received * self.price[1]) / 1e6
            cost = f", {dollars:.4f} dollars"
        return (
            f"judge {self.endpoint.model}: {self.requests:,} requests, {self.sent:,} tokens sent and {self.received:,} "
            f"received{cost}; {self.kept:,} replies were known"
        )

    @staticmethod
    def _named(result: Any, row: Mapping[str, Any], output: str) -> float:
        try:
            return result()
        except MezoError as error:
            raise MezoError(f"{place('judge', row, output)}: {error}") from None

    def _messages(self, row: Mapping[str, Any], output: str) -> Messages:
        values = {"row": row, "output": output, "most": f"{self.most:g}"}

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name is None:
                return match[0][0]
            if name not in values and name not in row:
                raise MezoError(
                    f"{place('judge', row, output)}: the prompt asks for {{{name}}}, which the row has not"
                )
            found = values[name] if name in values else row[name]
            return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)

        return [{"role": "user", "content": _PLACE.sub(value, self.template)}]

    def _key(self, messages: Messages) -> str:
        content = json.dumps([self.endpoint.model, self.endpoint.base_url, self.most, list(messages)])
        return blake2b(content.encode(), digest_size=16).hexdigest()

    def _score(self, messages: Messages) -> float:
        reply = self.endpoint.ask(messages)
        if (found := _score_in(reply, self.most)) is not None:
            return found
        again = {"role": "user", "content": _AGAIN % f"{self.most:g}"}
        second = self.endpoint.ask([*messages, {"role": "assistant", "content": reply}, again])
        if (found := _score_in(second, self.most)) is None:
            raise MezoError(
                f'the judge {self.endpoint.model} gave no {{"score": N}} with N from 0 to {self.most:g}, asked twice: '
                f"{' '.join(second.split())!r:.120}"
            )
        return found

    def _count(self, usage: Any) -> None:
        with self._lock:
            self.requests += 1
            self.sent += int(getattr(usage, "prompt_tokens", 0) or 0)
            self.received += int(getattr(usage, "completion_tokens", 0) or 0)

    def _keep(self, key: str, score: float) -> None:
        if key in self._scores:
            return
        self._scores[key] = score
        if self._cache is not None:
            try:
                with self._cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "score": score}) + "\n")
            except OSError as error:
                raise MezoError(f"reward 'judge': cache={str(self._cache)!r}: {error.strerror}") from None


def _template(prompt: str) -> str:
    if not isinstance(prompt, str):
        raise MezoError(f"reward 'judge': expected prompt to be a text or a file, found {prompt!r:.40}")
    if prompt.endswith(".txt"):
        try:
            prompt = read_text(Path(prompt).expanduser())
        except (OSError, ValueError) as error:
            raise MezoError(
                f"reward 'judge': prompt={prompt!r:.100}: {' '.join(str(error).split())}"
            ) from None
    if not any(match[1] == "output" for match in _PLACE.finditer(prompt)):
        raise MezoError(
            "reward 'judge': expected {output} in the prompt, the place of what was written; found none"
        )
    return prompt


def _score_in(reply: str, most: float) -> float | None:
    """The score of the last object of a reply that has one in range."""
    for text in reversed(_OBJECT.findall(reply)):
        with contextlib.suppress(ValueError, RecursionError):
            score = json.loads(text).get("score")
            if isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score):
                return float(score) if 0 <= score <= most else None
    return None


def _read(path: Path) -> dict[str, float]:
    """The replies kept in a file."""
    found: dict[str, float] = {}
    if not path.exists():
        return found
    try:
        lines = read_text(path, most=_CACHE_MOST).splitlines()
    except (OSError, ValueError) as error:
        raise MezoError(f"reward 'judge': cache={str(path)!r}: {' '.join(str(error).split())}") from None
    for line in lines:
        try:
            entry = json.loads(line)
            key, score = entry["key"], float(entry["score"])
        except (ValueError, KeyError, TypeError):  # broken off: it is asked for again
            continue
        found[key] = score
    return found
