"""The part of a head start that blocks write: fitted as one ridge regression, and the same in every form that holds it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from tests.tiny_models import same_files, tiny
from tests.training.test_head_start import base, config_for, data, others, run

from mezo.build import head_start, token_counts
from mezo.build.block_fit import HEAD, BlockFit
from mezo.build.block_inputs import residual_writers, writing_of
from mezo.build.label_fit import FrozenFeatures, fit_rows, minimised
from mezo.build.token_counts import TokenCounts, along_of
from mezo.errors import MezoError
from mezo.resume.replay import replay
from mezo.runs.outputs.merge import merge
from mezo.scoring import Example
from mezo.training.trainer import MeZOTrainer
from mezo.tuning.evidence import Evidence, showing, sizes_of, write_evidence
from mezo.tuning.label_rows import LabelRows
from mezo.tuning.token_evidence import TokenEvidence, token_embedding

__all__ = ["data"]  # a fixture


def examples(count: int = 40) -> tuple[FrozenFeatures, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(0)
    hidden, first = torch.randn(count, 6, generator=draw).double(), torch.randn(count, 3, generator=draw)
    inputs = {name: 3 * torch.randn(count, width, generator=draw) for name, width in (("a", 5), ("b", 70))}
    right = torch.nn.functional.one_hot((hidden[:, 0] > 0).long() + (inputs["b"][:, 0] > 0), 3).bool()
    first = first.double().log_softmax(1) - 2
    return FrozenFeatures(
        hidden, first, torch.zeros(count, 3).double(), right, torch.ones(3).double()
    ), inputs


def test_the_fit_in_the_examples_space_is_the_ridge_regression_on_all_features() -> None:
    known, inputs = examples()
    blocks = BlockFit.of(known, inputs)
    assert blocks is not None
    change = minimised(blocks.known, torch.zeros(3, blocks.known.hidden.shape[1]).double(), 10.0)
    # what is counted of each feature, of size 1: HEAD in the head, 6 / 75 in the matrices
    wide = [x.double() / x.double().square().mean(0).sqrt() for x in (known.hidden, *inputs.values())]
    plain = torch.cat([HEAD**0.5 * wide[0], *((6 / 75) ** 0.5 * x for x in wide[1:])], 1)
    whole = replace(known, hidden=plain, scale=torch.ones(81).double())
    direct = minimised(whole, torch.zeros(3, 81).double(), 10.0)
    # the optimiser stops where no slope is above 1e-6
    torch.testing.assert_close(blocks.known.hidden @ change.T, plain @ direct.T, rtol=0, atol=1e-4)
    # and on the features as they were read
    found = known.hidden @ blocks.rows(change).T
    for name, reads in blocks.reads(change).items():
        found = found + inputs[name].double() @ reads.double().T
    torch.testing.assert_close(found, plain @ direct.T, rtol=0, atol=1e-4)


def prompts() -> list[Example]:
    """Token 1 is in all, 9 is a candidate's, 3 is twice in one."""
    made = [(1, 3, 3, 4), (1, 9, 5), (1, 4, 6, 7), (1, 8)]
    return [Example(p, ((9,), (11, 12)), 0) for p in made]


def test_tokens_are_counted_as_shares_of_a_prompt() -> None:
    counts = TokenCounts.of(prompts())
    assert counts is not None
    assert counts.tokens.tolist() == [3, 4, 5, 6, 7, 8]
    seen = torch.tensor([1, 2, 1, 1, 1, 1])
    torch.testing.assert_close(counts.rarity, (4 / seen) ** 0.25)
    shares = torch.tensor([[2, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]])
    expected = shares / shares.sum(1, keepdim=True)
    torch.testing.assert_close(counts.features, expected * counts.rarity)


def test_of_many_tokens_those_of_the_most_prompts_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_counts, "_MOST", 2)
    counts = TokenCounts.of(prompts())
    assert counts is not None
    assert counts.tokens.tolist() == [3, 4]
    assert TokenCounts.of([Example((1, 9), ((9,), (11,)), 0)] * 3) is None


def test_what_tokens_say_is_their_part_of_the_fit() -> None:
    known, inputs = examples()
    draw = torch.Generator().manual_seed(5)
    asked = [
        Example(tuple(torch.randint(20, 60, (9,), generator=draw).tolist()), ((1,), (2,), (3,)), 0)
        for _ in range(len(known))
    ]
    counts = TokenCounts.of(asked)
    blocks = BlockFit.of(known, inputs, counts, 0.7)
    assert blocks is not None
    assert counts is not None
    # all tokens count 0.7 of what the head's width does
    mean = float((blocks.said * counts.features.square().sum(1)).mean())
    assert mean == pytest.approx(0.7 * 6, rel=1e-5)
    change = minimised(blocks.known, torch.zeros(3, blocks.known.hidden.shape[1]).double(), 10.0)
    found = known.hidden @ blocks.rows(change).T
    for name, reads in blocks.reads(change).items():
        found = found + inputs[name].double() @ reads.double().T
    shares = counts.features / counts.rarity
    found = found + (shares @ blocks.says(change)).double()
    fitted = blocks.known.hidden @ change.T
    # the same but for what all words have in common, which no loss over candidates sees; float32 says
    torch.testing.assert_close(
        found - found.mean(1, keepdim=True), fitted - fitted.mean(1, keepdim=True), rtol=0, atol=1e-5
    )


def test_inputs_that_are_not_finite_are_not_fitted() -> None:
    known, inputs = examples()
    inputs["a"][3, 2] = torch.inf
    assert BlockFit.of(known, inputs) is None
    assert BlockFit.of(known, {}) is None


def test_a_fold_is_fitted_without_its_examples() -> None:
    known, _ = examples()
    fit = fit_rows(known)
    assert fit.held_out is not None
    assert fit.losses[1] == pytest.approx(float(fit.held_out.mean()))
    for out, change in fit.folds:
        torch.testing.assert_close(known.at(out).losses(change), fit.held_out[out])


def test_rows_that_are_changed_twice_are_those_changed_by_the_sum() -> None:
    known, _ = examples()
    one, two = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(3)).double()
    torch.testing.assert_close(known.moved(one).losses(two), known.losses(one + two))


def test_evidence_is_read_by_attention_of_the_later_half_and_by_the_last_mlp() -> None:
    config = hf.LlamaConfig(
        vocab_size=99, hidden_size=8, intermediate_size=8, num_hidden_layers=4, num_attention_heads=2
    )
    assert list(residual_writers(hf.LlamaForCausalLM(config), 8)) == [
        "model.layers.2.self_attn.o_proj",
        "model.layers.3.self_attn.o_proj",
        "model.layers.3.mlp.down_proj",
    ]


def inputs_of(module: torch.nn.Module) -> int:
    sizes = sizes_of(module)
    assert sizes is not None
    return sizes[1]


def said_by(model: Any, draw: torch.Generator) -> TokenEvidence:
    found = token_embedding(model)
    assert found is not None
    width = found[1].embedding_dim
    says = torch.randn(3, 2, generator=draw)
    return TokenEvidence(torch.tensor([5, 7, 20]), says, torch.randn(width, 2, generator=draw))


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "opt"])
def test_evidence_beside_the_weights_is_evidence_in_them(name: str) -> None:
    model = tiny(name).eval()
    writers = residual_writers(model, model.get_output_embeddings().weight.shape[1])
    assert len(writers) == 2, "attention and MLP of the later of two blocks"
    draw, ids = torch.Generator().manual_seed(1), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    wide = model.get_output_embeddings().weight.shape[1]
    made = Evidence(
        torch.randn(wide, 2, generator=draw),
        {n: torch.randn(2, inputs_of(m), generator=draw) for n, m in writers.items()},
        said_by(model, draw),
    )
    with torch.no_grad(), showing(model, made):
        beside = model(input_ids=ids).logits
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, before)
        write_evidence(model, made)
        inside = model(input_ids=ids).logits
    assert not torch.allclose(before, inside, atol=1e-2)
    # a tied head has the tokens' rows as well; no label word is among them
    others = torch.ones(inside.shape[-1]).bool().index_fill(0, torch.tensor([5, 7, 20]), value=False)
    torch.testing.assert_close(beside[..., others], inside[..., others], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "opt"])
def test_a_unit_of_evidence_raises_one_word_by_one(name: str) -> None:
    """On average over the examples, to first order, with the rows changed."""
    model = tiny(name).eval()
    head = model.get_output_embeddings()
    writer = list(residual_writers(model, head.weight.shape[1]).values())[-1]
    change = torch.randn(2, head.weight.shape[1], generator=torch.Generator().manual_seed(2)) / 10
    mask = 1 if name == "bert" else None
    asked = [Example((25 + n, 6, 7, 38 + n), ((9,), (11,)), 0, mask_position=mask) for n in range(4)]
    writing = writing_of(model, writer, asked, change)
    assert writing is not None
    step, rises = 1e-2, []
    with torch.no_grad():
        head.weight[[9, 11]] += change  # which no example reads
        for example in asked:
            place = -1 if mask is None else mask

            def logits(moved: torch.Tensor, example: Example = example, place: int = place) -> torch.Tensor:
                def add(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
                    return output + moved

                hook = writer.register_forward_hook(add)
                try:
                    return model(input_ids=torch.tensor([example.prompt])).logits[0, place, [9, 11]]
                finally:
                    hook.remove()

            rises.append(torch.stack([logits(step * w) - logits(-step * w) for w in writing.T]) / (2 * step))
    # a central difference is wrong by the third derivative: step^2 times some units
    torch.testing.assert_close(torch.stack(rises).mean(0), torch.eye(2), rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "opt"])
def test_all_tokens_of_a_prompt_raise_one_word_by_one_against_the_others(name: str) -> None:
    """On average over the examples, to first order, with the rows changed."""
    model = tiny(name).eval()
    head, found = model.get_output_embeddings(), token_embedding(model)
    assert found is not None
    change = torch.randn(3, head.weight.shape[1], generator=torch.Generator().manual_seed(2)) / 10
    mask, words = 1 if name == "bert" else None, [9, 11, 13]
    candidates = tuple((w,) for w in words)
    asked = [Example((25 + n, 6, 7, 38 + n), candidates, 0, mask_position=mask) for n in range(8)]
    gaining = torch.tensor([7, *range(25, 33), *range(38, 46)])
    along, count = along_of(model, found[1], asked, change, gaining)
    assert along is not None
    assert count == 8
    step, rises = 1e-2, []
    with torch.no_grad():
        head.weight[words] += change  # which no example reads
        for example in asked:
            at, ids = torch.isin(torch.tensor(example.prompt), gaining), torch.tensor([example.prompt])

            def logits(moved: torch.Tensor, at: torch.Tensor = at, ids: torch.Tensor = ids) -> torch.Tensor:
                def add(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
                    return output + at[None, :, None] * moved

                hook = found[1].register_forward_hook(add)
                try:
                    return model(input_ids=ids).logits[0, -1 if mask is None else mask, words]
                finally:
                    hook.remove()

            rises.append(torch.stack([logits(step * w) - logits(-step * w) for w in along.T]) / (2 * step))
    mean = torch.stack(rises).mean(0)
    # a central difference is wrong by the third derivative: step^2 times some units
    torch.testing.assert_close(mean - mean.mean(1, keepdim=True), torch.eye(3) - 1 / 3, rtol=0, atol=0.05)


def test_prompts_that_would_keep_too_much_are_not_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama").eval()
    asked = [Example((5,) * 6, ((9,), (11,)), 0)] * 20
    change = torch.zeros(2, model.get_output_embeddings().weight.shape[1])
    embedding = model.get_input_embeddings()
    assert along_of(model, embedding, asked, change, torch.tensor([5]))[1] == 20
    monkeypatch.setattr(token_counts, "_ROOM", 0)
    monkeypatch.setattr(token_counts, "_SHARE", 10**9)
    assert along_of(model, embedding, asked, change, torch.tensor([5])) == (None, 0)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_run_holds_the_evidence_and_tunes_no_more_than_without(
    name: str, tuning: str, data: Path, tmp_path: Path
) -> None:
    model = base(tmp_path / "base", name)
    plain = MeZOTrainer(config_for(model, data, tuning, start="model"))
    trainer = MeZOTrainer(config_for(model, data, tuning), output=tmp_path / "run")
    result = trainer.train()
    assert result.start is not None
    assert result.start["matrices"] == 2
    kept = LabelRows.of_bytes((tmp_path / "run" / "start.safetensors").read_bytes(), "the run")
    assert kept.evidence is not None
    assert len(kept.evidence.reads) == 2
    assert [t.name for t in trainer.weights.tunables] == [t.name for t in plain.weights.tunables]
    if tuning == "lora":
        saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
        for matrix, reads in kept.evidence.reads.items():
            (a,) = (t for n, t in saved.items() if f".{matrix}.lora_A" in n)
            (b,) = (t for n, t in saved.items() if f".{matrix}.lora_B" in n)
            assert torch.equal(a, reads)
            assert torch.equal(2 * b, kept.evidence.writing)
        # one scale in all blocks, for programs that know of no other: alpha 16 at rank 8
        said = json.loads((tmp_path / "run" / "adapter" / "adapter_config.json").read_text())
        assert (said["lora_alpha"], said["r"]) == (16, 8)
        assert {said["alpha_pattern"][m] / said["rank_pattern"][m] for m in kept.evidence.reads} == {2}


def letters(folder: Path) -> Path:
    """Great are texts of more letters before n than from there on."""
    folder.mkdir()
    drawn = np.random.default_rng(0).integers(97, 123, (240, 15))
    for split, rows in (("train", drawn[:200]), ("validation", drawn[200:])):
        lines = [{"sentence": "".join(map(chr, r)), "label": int((r < ord("n")).mean() > 0.5)} for r in rows]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("bert", "full"),
        ("llama-tied", "lora"),
        *(
            pytest.param(name, tuning, marks=pytest.mark.slow)
            for name, tuning in (
                ("gpt2", "full"),
                ("llama-tied", "full"),
                ("gpt2", "lora"),
                ("bert", "lora"),
            )
        ),
    ],
)
def test_a_run_holds_what_tokens_say(name: str, tuning: str, tmp_path: Path) -> None:
    model, data = base(tmp_path / "base", name), letters(tmp_path / "letters")
    plain = MeZOTrainer(config_for(model, data, tuning, start="model"))
    trainer = MeZOTrainer(config_for(model, data, tuning), output=tmp_path / "run")
    result = trainer.train()
    assert result.start is not None
    assert result.start["tokens"] == 22, "letters that are not in the prompt around every text"
    assert [t.name for t in trainer.weights.tunables] == [t.name for t in plain.weights.tunables]
    kept = LabelRows.of_bytes((tmp_path / "run" / "start.safetensors").read_bytes(), "the run").evidence
    assert kept is not None
    said = kept.tokens
    assert said is not None
    # what speaks for a word is in its letters
    great = said.says[:, 1] - said.says[:, 0]
    assert float(great[said.tokens < ord("n")].mean()) > 0 > float(great[said.tokens >= ord("n")].mean())
    written = replay(tmp_path / "run", output=tmp_path / "again")
    assert same_files(written, tmp_path / "run" / written.name)
    if tuning == "lora":
        saved = load_file(written / "adapter_model.safetensors")
        (a,) = (t for n, t in saved.items() if "lora_embedding_A" in n)
        (b,) = (t for n, t in saved.items() if "lora_embedding_B" in n)
        assert torch.equal(a[:, said.tokens], said.says.T)
        assert int(a.count_nonzero()) == int(said.says.count_nonzero())
        assert torch.equal(2 * b, said.along)
    # what others load has the run's logits, and so has the merged model: float32 sums in another order
    loaded = others(written, model, name)
    if tuning == "lora":
        merged = merge(tmp_path / "run")
        loaded.append(type(result.model.get_base_model()).from_pretrained(merged).eval())
    ids = torch.tensor([[5, 6, 7, 101, 110]])
    with torch.no_grad():
        expected = result.model(input_ids=ids).logits
        for each in loaded:
            torch.testing.assert_close(each(input_ids=ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_an_adapter_with_what_tokens_say_is_tuned_on_without_moving_it(tmp_path: Path) -> None:
    model, data = base(tmp_path / "base", "llama"), letters(tmp_path / "letters")
    run(config_for(model, data, "lora"), tmp_path / "run")
    config = config_for(tmp_path / "run" / "adapter", data, "lora", start="model", learning_rate=1e-2)
    run(config, tmp_path / "on")
    before, after = (
        load_file(tmp_path / folder / "adapter" / "adapter_model.safetensors") for folder in ("run", "on")
    )
    assert before.keys() == after.keys()
    said = [name for name in before if "lora_embedding" in name]
    assert len(said) == 2
    assert all(torch.equal(before[name], after[name]) for name in said)


def test_matrices_that_are_tuned_themselves_write_no_evidence(data: Path, tmp_path: Path) -> None:
    model = base(tmp_path / "base", "gpt2")
    result = run(config_for(model, data, "lora", lora_targets=("c_proj",)))
    assert result.start is not None
    assert result.start["matrices"] == 0


def test_more_examples_than_the_fit_takes_have_rows_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_start, "MOST", 59)
    result = run(config_for(base(tmp_path / "base", "gpt2"), data, "lora"))
    assert result.start is not None
    assert (result.start["examples"], result.start["matrices"]) == (60, 0)


def test_a_start_of_another_model_is_refused(data: Path, tmp_path: Path) -> None:
    model = tiny("llama")
    wrong = Evidence(torch.zeros(3, 2), {"model.layers.1.mlp.down_proj": torch.zeros(2, 4)})
    with pytest.raises(MezoError, match="does not fit the model: expected a matrix"):
        write_evidence(model, wrong)
    with pytest.raises(MezoError, match=r"found none"):
        write_evidence(model, Evidence(torch.zeros(3, 2), {"no.such": torch.zeros(2, 4)}))
    made = Evidence(
        torch.zeros(0, 0), {}, TokenEvidence(torch.tensor([9]), torch.zeros(1, 2), torch.zeros(4, 2))
    )
    with pytest.raises(MezoError, match="expected an input embedding of width 4 and more than 9 tokens"):
        write_evidence(model, made)


def test_what_tokens_say_is_read_back_and_other_shapes_are_refused() -> None:
    draw = torch.Generator().manual_seed(0)
    said = TokenEvidence(
        torch.tensor([3, 8]), torch.randn(2, 2, generator=draw), torch.randn(4, 2, generator=draw)
    )
    rows = LabelRows(torch.tensor([1, 2]), torch.zeros(2, 6), Evidence(torch.zeros(6, 2), {}, said))
    again = LabelRows.of_bytes(rows.to_bytes(), "here").evidence
    assert again is not None
    assert again.tokens is not None
    assert torch.equal(again.tokens.change(), said.change())
    wrong = (
        replace(said, says=said.says[:1]),
        replace(said, along=said.along[:, :1].contiguous()),
        replace(said, tokens=torch.tensor([-1, 3])),
        replace(said, tokens=said.tokens.float()),
        replace(said, says=said.says.double()),
    )
    for each in wrong:
        data = replace(rows, evidence=Evidence(torch.zeros(6, 2), {}, each)).to_bytes()
        with pytest.raises(MezoError, match="here: expected tokens"):
            LabelRows.of_bytes(data, "here")
