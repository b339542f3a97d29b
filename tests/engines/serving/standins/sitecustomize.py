"""Lets PyPI's torchvision, built for a CUDA torch, be imported beside a CPU torch: for SGLang's tests.

It registers fake versions of two operators that such a torch does not have; here they are declared just before
torchvision is imported, and nothing is done in a process that does not import it.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    declared: Any = None

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision" and self.declared is None:
            import torch

            self.declared = torch.library.Library("torchvision", "DEF")
            self.declared.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            self.declared.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
