"""Every causal and masked architecture of the installed transformers, tiny, from its config class.

The sizes that a config names are made small by their names; what the names do not settle is in `EXCEPTIONS`.
"""

import contextlib
import warnings
from functools import cache
from typing import Any, Literal, NamedTuple

import torch
import transformers as hf
from transformers.models.auto import modeling_auto as auto

VOCABULARY = 300
POSITIONS = 256
LARGEST = 1_000_000  # parameters: above it, the tables have missed a size


class Architecture(NamedTuple):
    """A class of transformers, and the config that it is built from."""

    name: str  # of the class
    model_type: str
    kind: Literal["causal", "masked"]


# Small values, and the names by which configs know them. Lists of layers' kinds are made in `_settings`.
_NAMES: dict[Any, str] = {
    0: "num_nextn_predict_layers num_mtp_layers",
    1: (
        "encoder_layers n_group topk_group num_expert_group n_shared_experts num_shared_experts "
        "moe_num_shared_experts first_k_dense_replace num_dense_layers moe_layer_start_index "
        "mamba_n_groups n_groups mamba_ngroups"
    ),
    2: (
        "num_hidden_layers n_layer n_layers num_layers decoder_layers num_decoder_layers "
        "num_encoder_layers num_blocks num_key_value_heads num_kv_heads swa_num_key_value_heads "
        "num_experts_per_tok num_experts_per_token moe_topk moe_k index_n_heads n_mamba_heads "
        "altup_num_inputs hc_lowrank linear_num_key_heads linear_num_heads"
    ),
    4: (
        "num_attention_heads n_head n_heads num_heads decoder_attention_heads encoder_attention_heads "
        "attention_heads swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads "
        "num_experts num_local_experts n_routed_experts moe_num_experts qk_rope_head_dim rotary_dim "
        "linear_num_value_heads"
    ),
    8: (
        "head_dim d_head kv_channels attention_head_dim swa_head_dim global_head_dim dim_head "
        "attention_head_size v_head_dim swa_v_head_dim q_lora_rank kv_lora_rank o_lora_rank laurel_rank "
        "gated_norm_rank qk_nope_head_dim index_head_dim d_rel sliding_window local_attention "
        "attention_chunk_size window_size sliding_window_size attention_window_size keep_window_size "
        "state_size mamba_d_state mamba_dt_rank ssm_state_size time_step_rank mamba_n_heads mamba_d_head "
        "mamba_head_dim mamba_num_heads linear_key_head_dim linear_value_head_dim linear_head_dim "
        "hidden_size_per_layer_input pronunciation_embed_dim shape_embed_dim"
    ),
    16: "mamba_chunk_size chunk_size",
    24: (
        "moe_intermediate_size shared_expert_intermediate_size expert_ffn_hidden_size "
        "shared_intermediate_size moe_shared_expert_intermediate_size shared_experts_intermediate_size "
        "prefix_dense_intermediate_size"
    ),
    32: (
        "hidden_size d_model n_embd emb_dim dim embedding_dim embedding_size word_embed_proj_dim "
        "input_embedding_size output_embedding_size attention_hidden_size lru_width hidden_size_mlp"
    ),
    48: (
        "intermediate_size ffn_dim decoder_ffn_dim encoder_ffn_dim dff d_inner n_inner hidden_dim dim_ff "
        "feed_forward_size ffn_hidden_size intermediate_size_mlp dense_intermediate_size block_ff_dim"
    ),
    64: "mamba_d_ssm",
    POSITIONS: (
        "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions context_length "
        "model_max_length"
    ),
    VOCABULARY: (
        "vocab_size unpadded_vocab_size vocab_size_per_layer_input pronunciation_vocab_size shape_vocab_size"
    ),
}
_SIZES: dict[str, Any] = {name: value for value, names in _NAMES.items() for name in names.split()} | {
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_mamba_kernels": False,
}
_LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type", "indexer_types", "block_types")

# What the names above do not settle, by class.
_EXCEPTIONS: dict[str, dict[str, Any]] = {
    "AlbertForMaskedLM": {"embedding_size": 16},
    "BambaForCausalLM": {"attn_layer_indices": [1]},
    "BigBirdForCausalLM BigBirdForMaskedLM": {"attention_type": "original_full"},
    # the cache has a layer for each of the encoder's
    "BartForCausalLM BigBirdPegasusForCausalLM BlenderbotForCausalLM BlenderbotSmallForCausalLM MBartForCausalLM "
    "MarianForCausalLM MvpForCausalLM PLBartForCausalLM PegasusForCausalLM": {"encoder_layers": 2},
    "CohereCompassForCausalLM": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e4}}
    },
    "DbrxForCausalLM": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "DebertaForMaskedLM DebertaV2ForMaskedLM": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "EsmcForMaskedLM": {"num_key_value_heads": 4},
    "GPTNeoForCausalLM": {"attention_types": [[["global", "local"], 1]]},
    "Gemma3nForCausalLM": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "GraniteMoeHybridForCausalLM": {"layer_types": ["linear_attention", "full_attention"]},
    "JambaForCausalLM": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "Lfm2ForCausalLM Lfm2MoeForCausalLM": {"layer_types": ["conv", "full_attention"]},
    "Mamba2ForCausalLM": {"num_heads": 8},
    "NeoMMEForMaskedLM": {"head_dim": 16},
    "Qwen4ExpForCausalLM": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
    },
    "ReformerModelWithLMHead ReformerForMaskedLM": {
        "attn_layers": ["local", "local"],
        "axial_pos_shape": [16, 16],
        "axial_pos_embds_dim": [16, 16],
        "local_attn_chunk_length": 16,
    },
    "XmodForCausalLM XmodForMaskedLM": {"default_language": "en_XX"},
    "Zamba2ForCausalLM": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        **dict.fromkeys(("attention_hidden_size", "attention_head_dim", "kv_channels"), ...),
        "n_mamba_heads": 8,
    },
    "ZambaForCausalLM": {
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_hidden_layers": 3,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
    },
    "ZayaForCausalLM": {"num_experts_per_tok": 1, "router_hidden_size": 16},
    "xLSTMForCausalLM": {"hidden_size": 64, "embedding_dim": 64, "qk_dim_factor": 1.0},
}
EXCEPTIONS = {name: own for names, own in _EXCEPTIONS.items() for name in names.split()}

# Why a class is not built.
_REASONS = {
    "has an attention that needs a GPU": "MraForMaskedLM",
    "has a vision tower; its text model is a class of its own or is not in the mappings": (
        "Dots3NoteForCausalLM FuyuForCausalLM Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration "
        "Gemma4ForConditionalGeneration Gemma4UnifiedForConditionalGeneration GitForCausalLM "
        "GotOcr2ForConditionalGeneration ModernVBertForMaskedLM Phi4MultimodalForCausalLM "
        "UltraVBertForMaskedLM"
    ),
    "an encoder-decoder": "BartForConditionalGeneration MBartForConditionalGeneration MvpForConditionalGeneration",
    "reads codebooks of sound": "MusicgenForCausalLM MusicgenMelodyForCausalLM",
    "drafts tokens from the hidden states of another model": "Gemma4AssistantForCausalLM Gemma4UnifiedAssistantForCausalLM",
    "has an audio encoder": "MossTranscribeDiarizeForConditionalGeneration",
    "has four models of bytes and patches, each with sizes of its own": "BltForCausalLM",
    "has a vocabulary of entities besides that of tokens": "LukeForMaskedLM",
    "has a decoder whose queries are of a fixed number": "PerceiverForMaskedLM",
}
SKIPPED = {name: reason for reason, names in _REASONS.items() for name in names.split()}


@cache
def architectures() -> tuple[Architecture, ...]:
    """The classes of both mappings, each once, by name; those skipped too."""
    found: dict[str, Architecture] = {}
    for kind, mapping in (
        ("masked", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("causal", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    ):
        for model_type, name in mapping.items():
            known = found.get(name)
            if known is None or model_type.endswith("_text"):  # the text model of a multimodal family
                found[name] = Architecture(name, model_type, known.kind if known else kind)  # type: ignore[arg-type]
    return tuple(found[name] for name in sorted(found))


def architecture(name: str) -> Architecture:
    return next(a for a in architectures() if a.name == name)


def build(name: str) -> Any:
    """A frozen model in eval mode, the same at each call, with weights large enough that probes move its answers.

    Raises whatever the config or the model raises.
    """
    made = architecture(name)
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            size = sum(p.numel() for p in getattr(hf, name)(config_of(made)).parameters())
        if size > LARGEST:
            raise ValueError(f"{name}: {size:,} parameters, expected at most {LARGEST:,}: name its sizes")
        for factor in (4.0, 2.0, 1.0):
            torch.manual_seed(0)
            model = getattr(hf, name)(config_of(made))
            _enlarge(model, factor)
            model.eval().requires_grad_(False)
            if _is_calm(model):
                break
    model.config.architectures = [name]
    model.config.use_cache = False
    return model


def config_of(made: Architecture) -> Any:
    """The config of a class with the sizes of the tables in place of its own."""
    kind = getattr(hf, made.name).config_class
    settings = _settings(kind) | EXCEPTIONS.get(made.name, {})
    if made.kind == "causal" and "is_decoder" in kind().to_dict():
        settings.setdefault("is_decoder", True)
    return kind(**{key: value for key, value in settings.items() if value is not ...})


def _settings(kind: type) -> dict[str, Any]:
    own = kind().to_dict()  # type: ignore[call-arg]
    settings = {key: value for key, value in _SIZES.items() if key in own}
    if "kv_lora_rank" in own:  # latent attention makes keys and values for every head
        settings |= {"num_key_value_heads": 4, "qk_head_dim": 12}
        if "head_dim" in own:
            settings["head_dim"] = 4  # of the part with rotary positions
    lists = {
        key: list(dict.fromkeys(own[key])) for key in _LAYERS if isinstance(own.get(key), list) and own[key]
    }
    count = max([2, *map(len, lists.values())])
    for key, kinds in lists.items():
        settings[key] = [kinds[min(n, len(kinds) - 1)] for n in range(count)]
    if lists and "num_hidden_layers" in settings:
        settings["num_hidden_layers"] = count
    return settings


@torch.no_grad()
def _enlarge(model: Any, factor: float) -> None:
    for name, p in model.named_parameters():
        if not p.is_floating_point() or any(part in name for part in ("A_log", "time_", "dt_bias")):
            continue  # exponents of a recurrence
        if p.dim() > 1 and p.any():
            p.mul_(factor)
        else:
            p.add_(0.05 * torch.randn_like(p))
    model.tie_weights()


@torch.no_grad()
def _is_calm(model: Any) -> bool:
    """Whether answers are finite, and no token has all the probability."""
    ids = torch.arange(5, 21).unsqueeze(0)
    logits = model(input_ids=ids).logits.float()
    return bool(logits.isfinite().all()) and float(logits.std()) < 6


@contextlib.contextmanager
def _quiet() -> Any:
    before = hf.logging.get_verbosity()
    hf.logging.set_verbosity_error()
    try:
        yield
    finally:
        hf.logging.set_verbosity(before)
