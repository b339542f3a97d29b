"""Inside every worker of vLLM that has LoRA: adapters from memory, where vLLM itself reads them from a folder.

    llm = LLM(..., worker_extension_cls=EXTENSION)
    llm.collective_rpc("mezo_adapters", args=(numbers, files, config))

A request that names an adapter by a number which its workers hold is served from there; its path is not read.
"""

from collections.abc import Sequence
from typing import Any

from safetensors.torch import load

EXTENSION = f"{__name__}.MezoAdapters"


class MezoAdapters:
    """What every worker of vLLM inherits besides its own class."""

    model_runner: Any

    def mezo_adapters(self, numbers: Sequence[int], files: Sequence[bytes], config: dict[str, Any]) -> None:
        """Hold LoRA adapters under their numbers, as vLLM does for those in a folder: all of them, or none.

        files: of safetensors, under peft's names. config: peft's adapter_config.json, of all of them.
        """
        held: list[int] = []
        try:
            for number, file in zip(numbers, files, strict=True):
                self.mezo_adapter(number, file, config)
                held.append(number)
        except BaseException:
            self.mezo_forget(held)
            raise

    def mezo_forget(self, numbers: Sequence[int]) -> None:
        """Forget adapters."""
        for number in numbers:
            self.model_runner.remove_lora(number)

    def mezo_adapter(self, number: int, tensors: bytes, config: dict[str, Any]) -> bool:
        """Hold one."""
        from vllm.lora.lora_model import LoRAModel  # pyright: ignore[reportMissingImports]
        from vllm.lora.peft_helper import PEFTHelper  # pyright: ignore[reportMissingImports]

        manager = self.model_runner.lora_manager
        helper = PEFTHelper.from_dict(config)
        helper.validate_legal(manager.lora_config)
        held = manager._adapter_manager
        mapper = getattr(held.model, "hf_to_vllm_mapper", None)
        lora = LoRAModel.from_lora_tensors(
            number,
            load(tensors),
            helper,
            device="cpu",
            dtype=manager.lora_config.lora_dtype,
            model_vocab_size=manager.vocab_size,
            weights_mapper=None if mapper is None else mapper.get_rename_mapper(),
            skip_prefixes=getattr(held.model, "lora_skip_prefixes", None),
        )
        if len(held) + 1 > held.capacity:
            raise RuntimeError(f"no place for another adapter: {held.capacity} are held")
        return held.add_adapter(lora)
