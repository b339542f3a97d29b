"""SGLang's own ModelRunner and LoRAManager in this process: rows through its forward, adapters in its memory pool.

For a program that holds the two already and runs no scheduler beside them: the cache of keys and values is taken from
the runner's pools, and freed when the backend is closed.
"""

import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mezo.engines.output_text import OutputText
from mezo.engines.sampling import Chooser
from mezo.engines.serving.backend import Answer, Ask, Backend, Names, Tokens
from mezo.engines.serving.requests import in_waves
from mezo.errors import MezoError
from mezo.util.writing import Seeded, Writing

_MADE = "in-memory"  # stands where SGLang expects the path of an adapter


class ModelRunnerBackend(Backend):
    """A model in SGLang's ModelRunner.

    Args:
        model_runner: with its memory pools and attention backends, as SGLang's scheduler makes it.
        lora_manager: the runner's own by default.
        tokenizer: for text that is written.
        cache: whether keys and values of rows that begin alike are computed once, by SGLang's radix cache.

    Raises:
        MezoError: the runner is one part of several, or has no room for LoRA adapters.
    """

    def __init__(
        self, model_runner: Any, lora_manager: Any = None, tokenizer: Any = None, *, cache: bool = True
    ):
        from sglang.srt.mem_cache.cache_init_params import (  # pyright: ignore[reportMissingImports]
            CacheInitParams,
        )
        from sglang.srt.mem_cache.radix_cache import RadixCache  # pyright: ignore[reportMissingImports]

        self.runner, self.lora = model_runner, lora_manager or model_runner.lora_manager
        self.tokenizer, self.cache = tokenizer, cache
        if self.lora is None:
            raise MezoError("this ModelRunner has no LoRAManager: start it with enable_lora=True")
        if getattr(model_runner, "tp_size", 1) != 1:
            raise MezoError(
                f"a ModelRunner of tp_size 1 is expected, found one of {model_runner.tp_size} parts: use "
                "engine='sglang' with tensor_parallel, which asks all parts"
            )
        self.tree = RadixCache(
            CacheInitParams(
                disable=not cache,
                req_to_token_pool=model_runner.req_to_token_pool,
                token_to_kv_pool_allocator=model_runner.token_to_kv_pool_allocator,
                page_size=model_runner.page_size,
            )
        )
        self.names, self.refs = Names(), dict[str, Any]()
        self._numbers = itertools.count()

    # ---------------------------------------------------------------- rows

    def score(self, asks: Sequence[Ask]) -> list[Answer]:
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        return in_waves(asks, self._score) if self.cache else self._score(asks)

    def write(self, asks: Sequence[Ask], writing: Writing) -> list[Tokens]:
        """A token of every row in each pass; the cache spares what was there before."""
        for adapter in {ask.adapter for ask in asks}:
            self.names.need(adapter)
        ends = {*(self.runner.model_config.hf_eos_token_id or ()), self.tokenizer.eos_token_id, *writing.ends}
        rows, text = [list(ask.tokens) for ask in asks], OutputText(self.tokenizer)
        going = list(range(len(rows)))
        choosers = [Chooser(writing, [Seeded(ask.seed)], torch.device("cpu")) for ask in asks]
        for place in range(writing.max_new_tokens):
            found = (
                self._forward([Ask(tuple(rows[i]), adapter=asks[i].adapter, choices=(0,)) for i in going])
                if going
                else ()
            )
            for i, (_, last) in zip(list(going), found, strict=True):
                token = int(choosers[i].choose(last.cpu()[None], place))
                rows[i].append(token)
                new = rows[i][len(asks[i].tokens) :]
                if token in ends or writing.is_over(text.text(new, writing)):
                    going.remove(i)
        return [tuple(row[len(ask.tokens) :]) for row, ask in zip(rows, asks, strict=True)]

    def _score(self, asks: Sequence[Ask]) -> list[Answer]:
        return [answer for answer, _ in self._forward(asks)]

    def _forward(self, asks: Sequence[Ask]) -> list[tuple[Answer, torch.Tensor]]:
        """Each ask's answer, and the logits after its last token."""
        return [found for batch in self._batches(asks) for found in self._pass(batch)]

    def _batches(self, asks: Sequence[Ask]) -> Iterator[list[Ask]]:
        """What fits into the pools at once."""
        rows, tokens = self.runner.req_to_token_pool.size, self.runner.max_total_num_tokens
        batch: list[Ask] = []
        for ask in asks:
            if len(ask.tokens) > tokens:
                raise MezoError(f"a row of {len(ask.tokens)} tokens: this ModelRunner has room for {tokens}")
            more = [*batch, ask]
            if (
                len(more) > rows
                or sum(-(-len(a.tokens) // self.runner.page_size) for a in more) * self.runner.page_size
                > tokens
                or len({a.adapter for a in more}) > self.lora.max_loras_per_batch
            ):
                yield batch
                more = [ask]
            batch = more
        if batch:
            yield batch

    @torch.no_grad()
    def _pass(self, asks: list[Ask]) -> list[tuple[Answer, torch.Tensor]]:
        # SGLang is there only in the environments that this runs in.
        from sglang.srt.managers.schedule_batch import (  # pyright: ignore[reportMissingImports]
            ScheduleBatch,
        )
        from sglang.srt.mem_cache.common import release_kv_cache  # pyright: ignore[reportMissingImports]
        from sglang.srt.model_executor.forward_batch_info import (  # pyright: ignore[reportMissingImports]
            ForwardBatch,
        )
        from sglang.srt.speculative.spec_info import (  # pyright: ignore[reportMissingImports]
            SpeculativeAlgorithm,
        )

        requests = [self._request(ask) for ask in asks]
        for request in requests:
            request.init_next_round_input(self.tree)
            request.extend_end = len(request.full_untruncated_fill_ids)
            request.lock = self.tree.lock(request.last_node)
        cached = [request.prefix_len for request in requests]
        batch = ScheduleBatch.init_new(
            reqs=requests,
            req_to_token_pool=self.runner.req_to_token_pool,
            token_to_kv_pool_allocator=self.runner.token_to_kv_pool_allocator,
            tree_cache=self.tree,
            model_config=self.runner.model_config,
            enable_overlap=False,
            spec_algorithm=SpeculativeAlgorithm.NONE,
        )
        batch.prepare_for_extend()
        if batch.input_ids is None:
            batch.input_ids = batch.prefill_input_ids_cpu.to(batch.device)
            batch.prefill_input_ids_cpu = None
        try:
            output = self.runner.forward(
                ForwardBatch.init_new(batch, self.runner, return_hidden_states_before_norm=False)
            ).logits_output
        finally:
            for request in requests:
                release_kv_cache(request, self.tree, checkpoint=self.cache)
        lengths = [
            length - start
            for length, start in zip(batch.extend_lens, batch.extend_logprob_start_lens, strict=True)
        ]
        found = []
        for n, (ask, inside) in enumerate(zip(asks, output.input_token_logprobs.split(lengths), strict=True)):
            last = output.next_token_logits[n].float()
            if ask.choices:
                values = torch.log_softmax(last, -1)[list(ask.choices)]
            else:
                values = inside[: len(ask.tokens) - ask.start]
            answer = Answer(tuple(map(float, values)), len(ask.tokens), cached[n])
            found.append((answer, last))
        return found

    def _request(self, ask: Ask) -> Any:
        from sglang.srt.managers.schedule_batch import Req  # pyright: ignore[reportMissingImports]
        from sglang.srt.sampling.sampling_params import (  # pyright: ignore[reportMissingImports]
            SamplingParams,
        )

        request = Req(
            rid=f"mezo-{next(self._numbers)}",
            origin_input_text="",
            origin_input_ids=array("q", ask.tokens),
            sampling_params=SamplingParams(temperature=0, max_new_tokens=1),
            return_logprob=True,
            lora_id=None if ask.adapter is None else self.refs[ask.adapter].lora_id,
            vocab_size=self.runner.model_config.vocab_size,
        )
        request.logprob_start_len = len(ask.tokens) - 1 if ask.choices else ask.start - 1
        return request

    # ---------------------------------------------------------------- adapters

    def load_adapter(self, name: str, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        from sglang.srt.lora.lora_registry import LoRARef  # pyright: ignore[reportMissingImports]

        self.names.take(name)
        ref = LoRARef(lora_name=name, lora_path=f"{_MADE}/{name}", pinned=False)
        done = self.lora.load_lora_adapter_from_tensors(ref, dict(tensors), dict(config))
        if not done.success:
            raise MezoError(
                f"SGLang refused to load adapter {name!r}: {' '.join(str(done.error_message).split())}"
            )
        self.refs[name] = ref

    def unload_adapter(self, name: str) -> None:
        self.names.drop(name)
        done = self.lora.unload_lora_adapter(self.refs.pop(name))
        if not done.success:
            raise MezoError(f"SGLang refused to unload adapter {name!r}: {done.error_message}")

    def call_workers(self, operation: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        raise MezoError(
            "a ModelRunner in this process takes LoRA adapters alone: use engine='sglang' for its weights"
        )

    def flush(self) -> None:
        """Give every cached key and value back to the pools."""
        from sglang.srt.mem_cache.base_prefix_cache import (  # pyright: ignore[reportMissingImports]
            EvictParams,
        )

        if self.cache:
            self.tree.evict(EvictParams(num_tokens=self.tree.evictable_size()))

    def close(self) -> None:
        """Leaves the runner and the adapters as they are, without what was cached."""
        self.flush()
