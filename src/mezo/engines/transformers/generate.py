"""Generation at theta and at probes, by transformers' own `generate` and its key/value cache.

A probe's weights are needed for as many passes as tokens are written: `at` makes them once.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.generation.streamers import BaseStreamer

from mezo.engines.counts import Counts
from mezo.engines.output_text import OutputText, Tokens
from mezo.engines.sampling import Chooser
from mezo.engines.transformers.beginnings import BEGUN, TRIED, fits, in_common
from mezo.engines.transformers.plain_forward import NOT_TAKEN
from mezo.engines.transformers.unbroken_head import unbroken_head
from mezo.errors import MezoError
from mezo.models.offloaded import device_of
from mezo.tuning.prefix_keys import prefix_of
from mezo.types import Probe
from mezo.util.profiling import span
from mezo.util.writing import Seeded, Writing
from mezo.weights.weights import Weights


@contextmanager
def at(model: nn.Module, weights: Weights, probe: Probe) -> Iterator[None]:
    """Inside the block the model's tuned tensors are copies at theta + scale * z; theta is not written.

    Memory: a second copy of what is tuned (`memory="regenerate"` walks in place instead).
    """
    swapped: list[tuple[nn.Module, str, nn.Parameter | None]] = []
    try:
        if probe.scale:
            with span("noise"):
                moved = _moved(weights, probe)
            for module in model.modules():
                for key, tensor in module._parameters.items():
                    if id(tensor) in moved:
                        swapped.append((module, key, tensor))
                        module._parameters[key] = moved[id(tensor)]
        yield
    finally:
        for module, key, tensor in swapped:
            module._parameters[key] = tensor


def _moved(weights: Weights, probe: Probe) -> dict[int, nn.Parameter]:
    """By the id of each tuned tensor: what takes its place at the probe."""
    moved: dict[int, nn.Parameter] = {}
    for n, tunable in enumerate(weights.tunables):
        if probe.factor(n):
            copy = torch.empty_like(tunable.tensor.detach())
            weights.write(n, probe, copy.view(1, -1))
            moved[id(tunable.tensor)] = nn.Parameter(copy, requires_grad=False)
    return moved


class Writer(OutputText):
    """The text that a causal model writes after prompts.

    Prompts of a batch are padded on the left if the model gives the same result for a padded prompt, which is tried
    once; else only prompts of one length share a batch. What all prompts of a batch begin with is computed once, if the
    model then gives the same result, which is tried once as well.
    """

    def __init__(
        self, model: Any, tokenizer: Any, *, pad: int, max_tokens: int, counts: Counts, shares: bool = True
    ):
        """pad: a token to fill up with. max_tokens: of a batch, those to be written included. shares: whether shared
        beginnings may be computed once.
        """
        super().__init__(tokenizer, getattr(model, "generation_config", None))
        self.model, self.pad = model, pad
        self.max_tokens, self.counts = max_tokens, counts
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.takes = set(inspect.signature(inner.forward).parameters)  # an adapter's wrapper hands all on
        self._pads: bool | None = None
        self._shares: bool | None = None if shares else False
        self._may_end: dict[tuple[tuple[str, ...], int], bool] = {}

    def __call__(
        self, prompts: Sequence[Tokens], writing: Writing, seeded: Sequence[Seeded] = ()
    ) -> list[str]:
        """The text after each prompt: up to an end token or the first stop string.

        seeded: what each output is drawn by, where tokens are drawn. Raises MezoError if a prompt and its answer exceed
        the model's positions, or the logits are NaN.
        """
        self.check_room(prompts, writing.max_new_tokens)
        texts: list[str] = [""] * len(prompts)
        for members in self._batches(prompts, writing.max_new_tokens):
            drawn = [seeded[i] for i in members] if writing.draws else []
            written = self.tokens([prompts[i] for i in members], writing, drawn)
            for i, tokens in zip(members, written, strict=True):
                texts[i] = writing.cut(self.text(tokens, writing))
        return texts

    def check_room(self, prompts: Sequence[Tokens], max_new_tokens: int) -> None:
        """Raises MezoError if a prompt and its answer exceed the model's positions."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and (prefix := prefix_of(self.model)) is not None:
            limit -= prefix.num_tokens
        longest = max(map(len, prompts))
        if limit is not None and longest + max_new_tokens > limit:
            raise MezoError(
                f"a prompt of {longest} tokens and max_new_tokens={max_new_tokens} exceed the {limit} positions "
                "of this model; lower max_length or max_new_tokens"
            )

    def _batches(self, prompts: Sequence[Tokens], max_new_tokens: int) -> Iterator[list[int]]:
        """Prompts of like lengths together, so that little is padding."""
        mixed = len({len(p) for p in prompts}) > 1 and self.takes_padding()
        members: list[int] = []
        for i in sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)):
            width = len(prompts[i]) + max_new_tokens
            full = (len(members) + 1) * width > self.max_tokens
            unlike = members and not mixed and len(prompts[i]) != len(prompts[members[0]])
            if members and (full or unlike):
                yield members
                members = []
            members.append(i)
        yield members

    def tokens(
        self,
        prompts: Sequence[Tokens],
        writing: Writing,
        seeded: Sequence[Seeded],
        streamer: BaseStreamer | None = None,
    ) -> list[list[int]]:
        """The tokens after each prompt of one batch. streamer: of one prompt, hears of them as they come."""
        shared = self._shared(prompts, writing)
        ids, mask = self.padded(prompts, shared)
        until = Until(lambda tokens: self.is_over(tokens, writing), ids.shape[1])
        chooser = [Chooser(writing, seeded, ids.device, ids.shape[1])] if writing.draws else []
        with span("forward"), unbroken_head(self.model):
            whole = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=self._config(writing),
                logits_processor=LogitsProcessorList([undefined := Undefined(), *chooser]),
                stopping_criteria=StoppingCriteriaList([until]),
                streamer=streamer,
                **self._begun(ids, shared),
            )
        undefined.check()
        self.count(whole[:, :-1].numel(), shared * (len(ids) - 1))  # the last token is not read again
        return whole[:, ids.shape[1] :].tolist()

    def _config(self, writing: Writing, **more: Any) -> GenerationConfig:
        """Without the sampling and penalties of the model's own generation config; tokens are drawn by `Chooser`."""
        return GenerationConfig(
            max_new_tokens=writing.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            temperature=1.0,
            top_k=50,
            top_p=1.0,
            use_cache=True,
            pad_token_id=self.pad,
            eos_token_id=self.ends_of(writing) or None,
            **more,
        )

    def padded(self, prompts: Sequence[Tokens], shared: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, (B, T), on the model's device; filled up behind the `shared` first tokens."""
        width = max(map(len, prompts))
        ids = [[*p[:shared], *[self.pad] * (width - len(p)), *p[shared:]] for p in prompts]
        mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
        device = device_of(self.model)
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    def is_over(self, tokens: Tokens, writing: Writing) -> bool:
        """Whether a stop string ends with the last token, or ended before. The text is looked at only if that may be."""
        return self._can_end(tokens[-1], writing.stop) and writing.is_over(self.text(tokens, writing))

    def _can_end(self, token: int, stop: tuple[str, ...]) -> bool:
        """Whether a stop string may end in this token: it has the last character, or nobody knows."""
        if (stop, token) not in self._may_end:
            last = {s[-1] for s in stop}
            alone = self.decoded([token])
            unsure = any(not c.isascii() or c == " " for c in last)
            self._may_end[stop, token] = unsure or any(c in alone for c in last)
        return self._may_end[stop, token]

    def takes_padding(self) -> bool:
        """Whether a padded prompt has the next token's logits of the prompt alone.

        A prefix precedes the padding, which would push it out of a sliding window.
        """
        if prefix_of(self.model) is not None and getattr(self.model.config, "sliding_window", None):
            return False
        if self._pads is None:
            self._pads = alike(self.model, self.logits(TRIED)[0][1], self.logits(TRIED[1:])[0][0])
        return self._pads

    def logits(self, prompts: Sequence[Tokens], tokens: int = 1, shared: int = 0) -> Sequence[torch.Tensor]:
        """(B, V) for each of so many tokens, as `generate` sees them."""
        ids, mask = self.padded(prompts, shared)
        config = self._config(Writing(tokens), output_logits=True, return_dict_in_generate=True)
        begun = self._begun(ids, shared)
        with unbroken_head(self.model):
            return self.model.generate(
                input_ids=ids, attention_mask=mask, generation_config=config, **begun
            ).logits

    def may_share(self, width: int) -> bool:
        """Whether beginnings may be computed once in rows of so many tokens: `begun` is still to be tried."""
        return self._shares is not False and fits(self.model, width)

    def _shared(self, prompts: Sequence[Tokens], writing: Writing) -> int:
        """Tokens that the prompts of a batch begin with, and that are computed once."""
        shared = in_common(prompts)
        if not shared or not self.may_share(max(map(len, prompts)) + writing.max_new_tokens):
            return 0
        if self._shares is None:
            tried = TRIED if self.takes_padding() else (TRIED[0], TRIED[0][::-1])
            tried = [(*BEGUN, *ending) for ending in tried]
            before = replace(self.counts)
            try:
                found = self.logits(tried, 3, shared=len(BEGUN))
                self._shares = same_logits(self, found, self.logits(tried, 3))
            except NOT_TAKEN:  # a cache that cannot be handed to several rows
                self._shares = False
            self.counts.go_back(before)
        return shared if self._shares else 0

    def _begun(self, ids: torch.Tensor, shared: int) -> dict[str, Any]:
        """What transformers' `generate` is given for rows whose first tokens are the same."""
        return {"past_key_values": self.begun(ids[:1, :shared], len(ids))} if shared else {}

    @torch.no_grad()
    def begun(self, ids: torch.Tensor, copies: int) -> Any:
        """The cache of keys and values after these rows, each of them so many times."""
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True}
        if "logits_to_keep" in self.takes:
            inputs["logits_to_keep"] = 1
        cache = self.model(**inputs).past_key_values
        cache.batch_repeat_interleave(copies)
        return cache

    def count(self, asked: int, reused: int = 0) -> None:
        """Count tokens of a pass."""
        self.counts.asked += asked
        self.counts.computed += asked - reused
        self.counts.reused += reused


def same_logits(writer: Writer, found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> bool:
    """Whether logits of one token after another are equal but for sums in another order, as long as their tokens are."""
    for mine, right in zip(found, expected, strict=False):
        if not alike(writer.model, mine, right):
            return False
        tokens = mine.argmax(-1)
        if not torch.equal(tokens, right.argmax(-1)) or set(tokens.tolist()) & set(writer.ends):
            break  # what follows is after other tokens
    return True


def alike(model: Any, logits: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether they differ by sums in another order alone, up to a shift of all, which changes no choice.

    In float32 that is far below a thousandth of the logits' spread, for each. With 16 bits it is about a twentieth on
    average, where attending to the padding of TRIED is many times the spread.
    """
    if logits.shape != expected.shape:
        return False
    difference, spread = (logits - expected).float(), float(expected.float().std())
    if any(p.dtype.itemsize == 2 for p in model.parameters() if p.is_floating_point()):
        return float(difference.std()) <= 0.1 * spread
    return float(difference.abs().max()) <= 1e-3 * spread


class Undefined(LogitsProcessor):
    """Looks for logits that are NaN, without waiting for the device; changes nothing."""

    def __init__(self) -> None:
        self.found: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        now = scores.isnan().any()
        self.found = now if self.found is None else self.found | now
        return scores

    def check(self) -> None:
        """Raises MezoError if there were any."""
        if self.found is not None and bool(self.found):
            raise MezoError(
                "the model's logits are undefined (NaN), so that there is no likeliest token; lower the learning "
                "rate or epsilon, or use --dtype float32"
            )


class Until(StoppingCriteria):
    """Ends each row as soon as its new tokens satisfy a condition."""

    def __init__(self, holds: Callable[[list[int]], bool], start: int):
        self.holds, self.start = holds, start
        self.over: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        rows = input_ids[:, self.start :].tolist()
        before = self.over or [False] * len(rows)
        self.over = [done or self.holds(row) for done, row in zip(before, rows, strict=True)]
        return torch.tensor(self.over, device=input_ids.device)
