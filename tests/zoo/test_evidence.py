"""What blocks and tokens write in a head start is the same by hooks, in the weights, and in an adapter, or not written."""

import copy

import pytest
import torch
from tests.tiers import mostly_slow
from tests.zoo.building import SKIPPED, architectures, build

from mezo.build.block_inputs import residual_writers
from mezo.config import MeZOConfig
from mezo.errors import MezoError
from mezo.tuning.evidence import Evidence, showing, sizes_of, write_evidence
from mezo.tuning.label_rows import LabelRows, head_of
from mezo.tuning.lora import lora, lora_targets
from mezo.tuning.token_evidence import TokenEvidence, token_embedding

_FAST = {
    "BertForMaskedLM",
    "FalconH1ForCausalLM",
    "GPT2LMHeadModel",
    "HunYuanMoEV1ForCausalLM",
    "LlamaForCausalLM",
    "MixtralForCausalLM",
    "Zamba2ForCausalLM",
}
_NAMES = [(a.name,) for a in architectures() if a.name not in SKIPPED]


@pytest.mark.parametrize("name", mostly_slow(_NAMES, lambda name: name in _FAST))
@torch.no_grad()
def test_three_ways_to_hold_it(name: str) -> None:
    try:
        model = build(name)
        width = int(head_of(model)[1].get_parameter("weight").shape[1])
    except Exception as error:  # an architecture that is not built here, or has no plain head
        pytest.skip(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else name:.80}")
    writers = residual_writers(model, width)
    if not writers:
        pytest.skip("no matrix of it may write")
    draw, ids = torch.Generator().manual_seed(0), torch.tensor([[5, 6, 7, 8, 9, 10]])
    reads = {n: 0.3 * torch.randn(2, (sizes_of(m) or (0, 0))[1], generator=draw) for n, m in writers.items()}
    embedding, said = token_embedding(model), None
    if embedding is not None:
        says, along = (
            torch.randn(3, 2, generator=draw),
            torch.randn(embedding[1].embedding_dim, 2, generator=draw),
        )
        said = TokenEvidence(torch.tensor([5, 7, 8]), 0.1 * says, 0.1 * along)
    made = Evidence(0.3 * torch.randn(width, 2, generator=draw), reads, said)
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    before = model(**asked).logits
    with showing(model, made):
        beside = model(**asked).logits
    moved = float((beside - before).abs().max())
    assert moved > 1e-3
    full = copy.deepcopy(model)
    write_evidence(full, made)
    # float32 sums in another order: some 1e-7 of what was moved, over two blocks
    # of logits but the tokens' own, whose rows are in a tied head as well
    others = torch.ones(beside.shape[-1]).bool().index_fill(0, torch.tensor([5, 7, 8]), value=False)
    found = float((full(**asked).logits - beside)[..., others].abs().max())
    assert found < 1e-4 * max(1.0, moved)
    try:
        lora_targets(model)
    except MezoError:  # it takes no adapter by itself
        return
    rows = LabelRows(torch.tensor([11, 12]), torch.zeros(2, width), made)
    adapted = lora(copy.deepcopy(model), MeZOConfig(), rows)
    assert float((adapted(**asked).logits - beside).abs().max()) < 1e-4 * max(1.0, moved)
    held = {n for n, p in adapted.named_parameters() if p.requires_grad}
    plain = lora(copy.deepcopy(model), MeZOConfig())
    assert held == {n for n, p in plain.named_parameters() if p.requires_grad}, "no more is tuned"
