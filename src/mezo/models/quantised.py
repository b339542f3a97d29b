"""Bases whose weights are held in few bits: loaded as they are, or quantised while they are loaded. They do not move.

What is tuned beside them (LoRA, a prefix, norms, an unquantised head) is of ordinary floating-point tensors.
"""

import contextlib
import importlib.util
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch

from mezo.errors import MezoError

Quantize = Literal["nf4", "int8", "int4"]
# By the name in config.json: the packages that compute with it, and what it needs besides.
_NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "bitsandbytes": (("bitsandbytes",), "pip install 'mezo-llm[quantized]'"),
    "torchao": (("torchao",), "pip install 'mezo-llm[quantized]'"),
    "gptq": (("gptqmodel", "optimum"), "pip install gptqmodel optimum"),
    "awq": (("gptqmodel",), "pip install gptqmodel"),
    "mxfp4": ((), ""),  # becomes bfloat16
}
_PACKAGE: dict[str, str] = {"nf4": "bitsandbytes", "int8": "torchao", "int4": "torchao"}
# Activations keep their bits, so that sums in another order change an answer by rounding alone.
_WEIGHTS_ALONE = ("Int8WeightOnly", "Int4WeightOnly", "Float8WeightOnly", "IntxWeightOnly")


def method_of(config: Any) -> str | None:
    """How a model's config says that its weights are quantised: "bitsandbytes", "torchao"; None: they are not."""
    found = _settings(config)
    method = found.get("quant_method") if found is not None else None
    return None if method is None else str(getattr(method, "value", method))


def _settings(config: Any) -> Mapping[str, Any] | None:
    text = config.get_text_config()
    found = getattr(config, "quantization_config", None) or getattr(text, "quantization_config", None)
    if found is None or isinstance(found, Mapping):
        return found
    return {**vars(found), "quant_method": found.quant_method}


def options_for(
    name: str, config: Any, quantize: str | None, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """What from_pretrained is given for a quantised model; {} for one that is not.

    Raises MezoError, before a weight is read, for a way of quantising that this machine does not have.
    """
    method = method_of(config)
    if method is None and quantize is None:
        return {}
    if method is not None and quantize is not None:
        raise MezoError(
            f"{name}: quantize={quantize!r}, and its weights are quantised already ({method}): leave it away"
        )
    if method is not None and method not in _NEEDS:
        raise MezoError(
            f"{name}: its weights are quantised by {method}, which mezo does not load: expected {', '.join(_NEEDS)}"
        )
    needed, install = _NEEDS[method or _PACKAGE[str(quantize)]]
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        what = f"weights quantised by {method}" if method else f"quantize={quantize!r}"
        raise MezoError(f"{name}: {what} needs the package {missing[0]}: {install}")
    if method in ("gptq", "awq") and device.type != "cuda":
        raise MezoError(
            f"{name}: weights quantised by {method} need a CUDA GPU, found {device.type}: give the unquantised checkpoint, "
            "with --quantize nf4 where memory is short"
        )
    if method == "mxfp4":
        from transformers import Mxfp4Config  # type: ignore[attr-defined]

        return {"quantization_config": Mxfp4Config(dequantize=True)}  # its kernels are fetched from a hub
    given = {} if quantize is None else {"quantization_config": _config_of(name, quantize, dtype, device)}
    return {**given, "device_map": {"": device}}


def _config_of(name: str, quantize: str, dtype: torch.dtype, device: torch.device) -> Any:
    with quiet_packages():
        if quantize == "nf4":
            from transformers import BitsAndBytesConfig

            return BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig  # type: ignore[import-not-found]
        from transformers import TorchAoConfig

        if quantize == "int8":
            return TorchAoConfig(Int8WeightOnlyConfig())
        if device.type != "cuda" or dtype != torch.bfloat16:
            raise MezoError(
                f"{name}: quantize='int4' needs a CUDA GPU and dtype=bfloat16, found {device.type} and "
                f"{str(dtype).removeprefix('torch.')}: use nf4, which takes as much memory, or int8"
            )
        return TorchAoConfig(Int4WeightOnlyConfig(group_size=128))


@contextlib.contextmanager
def quiet_packages() -> Iterator[None]:
    """The packages tell on import which of their kernels this machine lacks, and on each product that inputs are cast."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def settle(model: Any) -> None:
    """Have matrices of 4 bits computed with in the model's dtype, and their bytes stay as they are.

    On processors with AVX512-BF16 bitsandbytes rounds scales and activations to bfloat16, and repacks the weights in the
    first forward.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def let_go_of_the_file(model: Any) -> None:
    """Copy what was not quantised: a view of the checkpoint's file keeps all of its pages, unquantised, in memory."""
    for parameter in model.parameters():
        if is_plain(parameter):
            parameter.data = parameter.data.clone()


def is_quantised(model: Any) -> bool:
    """Whether a model, or the base of a PeftModel, holds weights in few bits."""
    return any(not is_plain(p) for p in model.parameters()) or method_of(model.config) is not None


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds its values as they are: floating-point, and no subclass that stands for others."""
    return (
        tensor.dtype.is_floating_point
        and tensor.dtype.itemsize > 1
        and not hasattr(tensor, "__tensor_flatten__")
    )


def check_plain(named: Iterable[tuple[str, torch.Tensor]], tuning: str) -> None:
    """Raises MezoError if a tensor that is to move is held in few bits."""
    for name, tensor in named:
        if not is_plain(tensor):
            raise MezoError(
                f"tuning={tuning!r} would move {name}, whose values are quantised: use tuning=lora or prefix, or name "
                "unquantised parameters with train"
            )


def contents(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """All that a quantised model's weights are, as plain tensors by name: values, scales, zero points, tables."""
    for name, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            yield from _parts(name, value.detach())


def _parts(name: str, tensor: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    flatten = getattr(tensor, "__tensor_flatten__", None)
    if flatten is None:
        yield name, tensor.as_subclass(torch.Tensor)
        return
    for key in flatten()[0]:
        yield from _parts(f"{name}.{key}", getattr(tensor, key))


def mixes_rows(model: Any) -> bool:
    """Whether a row's answer depends on how the rows are laid out, beyond rounding: then each is computed as it is.

    Activations in 8 bits are rounded to one of 256 values, some by the largest value of all rows; bitsandbytes finds columns
    of outliers over all rows.
    """
    found = _settings(model.config)
    method = method_of(model.config)
    if found is None or method in ("gptq", "awq", "mxfp4"):
        return False
    if method == "bitsandbytes":
        return bool(found.get("load_in_8bit", found.get("_load_in_8bit"))) and bool(
            found.get("llm_int8_threshold", 6.0)
        )
    kind = found.get("quant_type")
    return not (type(kind).__name__ if not isinstance(kind, str | Mapping) else str(kind)).startswith(
        _WEIGHTS_ALONE
    )


def num_parameters(model: Any) -> int:
    """Weights of a model, two of them in a byte of bitsandbytes' four bits."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else state.shape.numel()
    return total
