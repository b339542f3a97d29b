"""Tiny random models of many architectures, the same ones in every run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

VOCABULARY = 300


def _llama_like(config: type, model: type, **extra: Any) -> Callable[[], Any]:
    return lambda: model(
        config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=128,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **extra,
        )
    )


def _bert_like(config: type, model: type) -> Callable[[], Any]:
    return lambda: model(
        config(
            vocab_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=140,
            pad_token_id=0,
        )
    )


_MAKERS: dict[str, Callable[[], Any]] = {
    "llama": _llama_like(hf.LlamaConfig, hf.LlamaForCausalLM),
    "llama-tied": _llama_like(hf.LlamaConfig, hf.LlamaForCausalLM, tie_word_embeddings=True),
    "mistral-window": _llama_like(hf.MistralConfig, hf.MistralForCausalLM, sliding_window=16),
    "qwen2": _llama_like(hf.Qwen2Config, hf.Qwen2ForCausalLM),
    "qwen3": _llama_like(hf.Qwen3Config, hf.Qwen3ForCausalLM),
    "gemma": _llama_like(hf.GemmaConfig, hf.GemmaForCausalLM),
    "gemma2-softcap": _llama_like(hf.Gemma2Config, hf.Gemma2ForCausalLM, sliding_window=64),
    "gemma3": _llama_like(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM, sliding_window=64),
    "opt": lambda: hf.OPTForCausalLM(
        hf.OPTConfig(
            vocab_size=VOCABULARY,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=128,
            pad_token_id=0,
        )
    ),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=128)
    ),
    "bert": _bert_like(hf.BertConfig, hf.BertForMaskedLM),
    "roberta": _bert_like(hf.RobertaConfig, hf.RobertaForMaskedLM),
}
ARCHITECTURES = sorted(_MAKERS)
MASKED = {"bert", "roberta"}


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Any:
    """A frozen model of about 30,000 parameters in eval mode, with weights large enough to matter."""
    torch.manual_seed(0)
    model = _MAKERS[name]()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(4)
            else:
                p.add_(0.05 * torch.randn_like(p))
    model.tie_weights()
    return model.to(dtype).eval().requires_grad_(False)


def same_files(a: Path, b: Path) -> bool:
    """Whether two folders hold the same files, byte for byte. The card tells of a run: a replay's weights have none."""
    names = sorted(p.name for p in a.iterdir() if p.name != "README.md")
    return names == sorted(p.name for p in b.iterdir() if p.name != "README.md") and all(
        (a / n).read_bytes() == (b / n).read_bytes() for n in names
    )
