"""STAND-IN for sglang-kernel, whose wheels hold CUDA libraries alone. For tests without a GPU, never installed.

Every name can be imported; what is called raises, so that no test passes on a kernel that is not there.
The Llama models of these tests call none. Refuses to be imported beside a GPU.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch

if torch.cuda.is_available() or Path("/proc/driver/nvidia").exists() or Path("/dev/nvidiactl").exists():
    raise ImportError(
        "sgl_kernel: this is the stand-in of mezo's tests, which has no kernels, and there is an NVIDIA GPU or its "
        "driver here: take tests/engines/serving/standins off PYTHONPATH and install sglang-kernel"
    )

__version__ = "0.4.10"


def _unpinned(function: Callable[..., Any]) -> Callable[..., Any]:
    """torch without CUDA has no pinned memory, and SGLang's LoRA asks for it without looking."""

    def call(*arguments: Any, **options: Any) -> Any:
        options.pop("pin_memory", None)
        return function(*arguments, **options)

    call.__name__ = function.__name__
    return call


for _name in ("tensor", "empty", "zeros"):
    setattr(torch, _name, _unpinned(getattr(torch, _name)))
torch.Tensor.pin_memory = lambda self, *arguments, **options: self


def _missing(name: str) -> Callable[..., NoReturn]:
    def kernel(*arguments: Any, **options: Any) -> NoReturn:
        raise NotImplementedError(f"{name}: the stand-in of mezo's tests has no kernels")

    kernel.__name__ = name
    return kernel


def _names_of(module: str) -> Callable[[str], Any]:
    def look_up(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _missing(f"{module}.{name}")

    return look_up


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        # scalar_type is asked for only to be found missing
        if not name.startswith("sgl_kernel.") or name == "sgl_kernel.scalar_type":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__getattr__"] = _names_of(module.__name__)


sys.meta_path.append(_Submodules())
__getattr__ = _names_of("sgl_kernel")
