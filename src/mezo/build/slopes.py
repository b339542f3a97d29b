"""How the label words' logits rise with what one module gives: what a head start differentiates, an example at a time."""

from collections.abc import Callable
from typing import Any

import torch

from mezo.models.offloaded import device_of
from mezo.scoring import Example


def slopes_of(
    model: Any, module: torch.nn.Module, change: torch.Tensor
) -> Callable[[Example], torch.Tensor | None]:
    """A function from an example to (C, positions, width) float32, on the CPU: the slopes of its candidates' first tokens.

    It gives None where the module's output is not on the way to the head, or the model is not differentiable there. What
    is before the module keeps nothing.

    Args:
        model: at the weights to start from.
        module: called once, for all positions of a prompt.
        change: (C, H) of the label words' rows, which is not in the model.
    """
    device, head = device_of(model), model.get_output_embeddings()
    moved = change.to(device, torch.float32)

    def slopes(example: Example) -> torch.Tensor | None:
        cuts: list[torch.Tensor] = []
        heard: list[torch.Tensor] = []

        def cut(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
            cuts.append(output.detach().requires_grad_(True))
            return cuts[-1].clone()  # which may be written to

        def hear(_module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            heard.append(inputs[0])

        hooks = [module.register_forward_hook(cut), head.register_forward_pre_hook(hear)]
        position = -1 if example.mask_position is None else example.mask_position
        try:
            with torch.enable_grad():
                ids = torch.tensor([example.prompt], device=device)
                logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, position].float()
                raised = moved @ heard[0].reshape(-1, heard[0].shape[-1])[position].float()
                words = logits[[c[0] for c in example.candidates]] + raised
                found = [torch.autograd.grad(word, cuts[0], retain_graph=True)[0] for word in words]
        except (RuntimeError, IndexError):
            return None
        finally:
            for hook in hooks:
                hook.remove()
        if len(cuts) != 1:
            return None
        return torch.stack([f.reshape(-1, f.shape[-1]) for f in found]).float().cpu()

    return slopes
