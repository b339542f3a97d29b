"""A small model that writes, and what transformers and a serving engine write with it at the same probes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from mezo.config import MeZOConfig
from mezo.engines.output_text import OutputText
from mezo.engines.serving.backend import Backend, EngineSpec
from mezo.engines.serving.engine import ServingEngine
from mezo.engines.serving.lora import Adapters
from mezo.engines.serving.open import adapter_config, lora_spec
from mezo.engines.transformers.engine import TransformersEngine
from mezo.engines.transformers.generate import at
from mezo.models.load import load
from mezo.noise.seeds import sampling_key
from mezo.objectives.base import OutputObjective
from mezo.optimizers import SGD
from mezo.scoring import Example
from mezo.tuning import tune
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

PLACES = 4  # adapters that an engine has room for in one batch: fewer than the tests ask for
TOKENS = 12  # of an output
ROUNDING = (
    1e-3  # between the two likeliest tokens; float32 in another order moves logits of this size by 1e-5
)
SPECIAL = ("<pad>", "<s>", "</s>", "<|end|>", "<|over|>")  # ids 0 to 4
END, OVER = 3, 4
CORPUS = [
    "The old man walked to the house , and he said : it is good .",
    "She went on and on about the river ; nobody wanted to hear of it again !",
    "What is there to say ? They had been there before , and so had we .",
    "Ein Café, zwei Cafés – déjà vu 🙂",
]


@dataclass(frozen=True, slots=True)
class Keeping(OutputObjective):
    """Keeps the outputs that it is given, batch by batch; its loss is 0."""

    name: str = "keeping"
    needs_candidates: bool = False
    metric: str = "kept"
    outputs: list[list[str]] = field(default_factory=list)

    def __call__(self, examples: Sequence[Example], outputs: Sequence[str]) -> float:
        self.outputs.append(list(outputs))
        return 0.0


def writer(folder: Path) -> Path:
    """A checkpoint whose tokens are pieces of words and of characters, and whose outputs do not repeat themselves.

    It writes `END`, a control token, and `OVER`, an end token by its generation config alone. The other settings of
    that config must change no output.
    """
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer) + -len(tokenizer) % 8,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = hf.LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # so that the likeliest token is so by far
        head = model.lm_head.weight.mul_(6)
        for token, often in zip((END, OVER), _often(model), strict=True):
            head[[token, often]] = head[[often, token]]
    model.generation_config = hf.GenerationConfig(
        eos_token_id=[2, OVER],
        do_sample=True,
        min_p=1.0,
        repetition_penalty=1.7,
        bos_token_id=1,
        pad_token_id=0,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> hf.PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special: list[Any] = [AddedToken(t, special=True, normalized=False) for t in SPECIAL]
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def _often(model: Any) -> list[int]:
    """Two tokens that are in many outputs, behind their fourth token."""
    written = model.generate(torch.tensor(PROMPTS), max_new_tokens=TOKENS, do_sample=False, eos_token_id=None)
    counts = torch.bincount(written[:, len(PROMPTS[0]) + 4 :].flatten(), minlength=len(SPECIAL))
    return counts[len(SPECIAL) :].topk(2).indices.add(len(SPECIAL)).tolist()


def _prompts() -> list[list[int]]:
    """Of whole characters, as every text's are: half of one at a prompt's end, vLLM counts into the output."""
    tokenizer = _tokenizer()
    whole = [t for t in range(len(SPECIAL), len(tokenizer)) if str(tokenizer.decode([t])).isascii()]
    drawn = torch.randint(len(whole), (24, 9), generator=torch.Generator().manual_seed(4))
    return torch.tensor(whole)[drawn].tolist()


PROMPTS = _prompts()


@dataclass
class Both:
    """One adapter, at whose probes transformers and a serving engine write."""

    here: TransformersEngine
    there: ServingEngine
    kept: Keeping
    tokenizer: Any
    known: dict[Any, tuple[list[int], float]] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Path, start: Callable[[EngineSpec], Backend]) -> "Both":
        config = MeZOConfig.build(model=str(checkpoint), tuning="lora", lora_rank=4, lora_alpha=8, seed=3)
        loaded = load(str(checkpoint), "float32", "cpu")
        model, weights = tune(loaded.model, config)
        settings, kept = adapter_config(model), Keeping()
        spec = EngineSpec(
            str(checkpoint), device="cpu", max_length=64, lora=lora_spec(settings, weights, at_once=PLACES)
        )
        here = TransformersEngine(
            model, weights, kept, SGD(), kind="causal", pad_token_id=0, tokenizer=loaded.tokenizer
        )
        backend = start(spec)
        text = OutputText(loaded.tokenizer, model.generation_config)
        there = ServingEngine(backend, Adapters(backend, weights, SGD(), settings), kept, text=text)
        return cls(here, there, kept, loaded.tokenizer)

    def written(
        self, engine: Any, writing: Writing, rows: Sequence[Example], probes: Sequence[Probe] = (THETA,)
    ) -> list[list[str]]:
        """[probe][output]"""
        engine.writing = writing
        self.kept.outputs.clear()
        engine.losses(rows, probes)
        return list(self.kept.outputs)

    @torch.no_grad()
    def tokens(
        self, prompt: Sequence[int], probe: Probe = THETA, count: int = TOKENS
    ) -> tuple[list[int], float]:
        """Those written greedily with no end, and how near the second likeliest ever was."""
        row, nearest = list(prompt), torch.inf
        if (key := (tuple(prompt), probe, count)) in self.known:
            return self.known[key]
        with at(self.here.model, self.here.weights, probe):
            for _ in range(count):
                (first, second), (token, _) = self.here.model(torch.tensor([row])).logits[0, -1].topk(2)
                nearest = min(nearest, float(first - second))
                row.append(int(token))
        self.known[key] = row[len(prompt) :], nearest
        return self.known[key]

    @torch.no_grad()
    def likeliest(self, prompt: Sequence[int], temperature: float) -> float:
        """The probability of the likeliest token after a prompt."""
        logits = self.here.model(torch.tensor([prompt])).logits[0, -1]
        return float((logits / temperature).softmax(-1).max())


def row(prompt: Sequence[int], step: int = 0) -> Example:
    """As a step has it."""
    return Example(tuple(prompt), ((5,),), 0, key=sampling_key(7, step, PROMPTS.index(list(prompt))))


def clear(
    both: Both, probes: Sequence[Probe] = (THETA,), gap: float = ROUNDING, count: int = TOKENS
) -> list[Example]:
    """Rows on whose likeliest tokens two programs must agree: at no probe are two tokens almost as likely."""
    found = [row(p) for p in PROMPTS if all(both.tokens(p, probe, count)[1] > gap for probe in probes)]
    assert len(found) >= 6
    return found
