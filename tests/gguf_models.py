"""GGUF files of tiny models, written by gguf's own writer, and what the values in them are."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from tests.toys import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

CHAT = "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
# What gguf-py writes; of the others it only knows what their blocks mean.
WRITTEN = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
READ = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "IQ3_S", "IQ2_XS", "IQ1_S")
# Bytes of a block that are float16 scales: those of random bytes would be infinite.
_SCALES = {
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_NL": (0,), "IQ4_XS": (0,),
    "IQ3_S": (0,), "IQ2_XS": (0,), "IQ1_S": (0,),
}  # fmt: skip


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """Rows of 256 weights: a block of the K types."""
    torch.manual_seed(seed)
    settings = dict(
        vocab_size=len(byte_tokenizer(words=(" great", " terrible"))),
        hidden_size=256,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=2**-17,
    )
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def write(path: Path, kind: str = "F32", model: Any = None, **metadata: Any) -> dict[str, torch.Tensor]:
    """Write a Llama whose matrices are of one type; the weights that the file stands for, by their own names."""
    model = tiny_llama() if model is None else model
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer)
    for name, value in metadata.items():
        writer.add_string(name.replace("__", "."), value)
    values = {}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for number, (name, tensor) in enumerate(model.named_parameters()):
        base, _, end = name.rpartition(".")
        rows = tensor.detach().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
            base.rsplit(".", 1)[-1]
        )
        stored = rows if heads is None else _interleaved(rows, heads)
        raw, meant = _as(stored, kind if rows.ndim == 2 else "F32", number)
        writer.add_tensor(
            f"{names.get_name(base)}.{end}",
            raw,
            raw_dtype=gguf.GGMLQuantizationType[kind if rows.ndim == 2 else "F32"],
        )
        values[name] = torch.from_numpy(meant if heads is None else _halves(meant, heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    own = json.loads(byte_tokenizer(words=(" great", " terrible")).backend_tokenizer.to_str())
    vocabulary = own["model"]["vocab"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
    writer.add_token_types([3 if i < 4 else 1 for i in range(len(vocabulary))])
    writer.add_token_merges([" ".join(pair) for pair in own["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT)


def _interleaved(rows: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp stores queries and keys."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _as(rows: np.ndarray, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(what is written, the float32 values that it means)."""
    of = gguf.GGMLQuantizationType[kind]
    raw = gguf.quants.quantize(rows, of) if kind in WRITTEN else _made_up(rows.shape, of, seed)
    return raw, np.array(gguf.quants.dequantize(raw, of), dtype=np.float32).reshape(rows.shape)


def _made_up(shape: tuple[int, ...], of: gguf.GGMLQuantizationType, seed: int) -> np.ndarray:
    """Blocks of random bytes with scales that are small numbers."""
    elements, size = gguf.GGML_QUANT_SIZES[of]
    blocks = np.random.default_rng(seed).integers(0, 256, (shape[0], shape[1] // elements, size), np.uint8)
    for at in _SCALES[of.name]:
        blocks[..., at : at + 2] = np.full((1,), 2e-4, np.float16).view(np.uint8)
    return blocks.reshape(shape[0], -1)
