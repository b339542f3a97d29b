"""Tensors on their way to a device."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def to_device(x: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """x, of host memory, on the device, without the host's waiting for what the device is at."""
    if device.type == "cuda":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
