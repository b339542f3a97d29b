"""How the Numba kernels are compiled, kept and announced, and the instructions Numba lacks.

Compiled kernels are kept on disk: beside the source, else in the user's cache folder, else nowhere. Numba notices a
change of the file that holds a kernel, but not of its callees' files; so a digest of all of them is part of a
kernel's name. Only module-level functions are kept. `parallel=True` is never used: it opens a second OpenMP pool,
which slows torch's forward passes.
"""

import ctypes
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import event
from numba.extending import intrinsic

import mezo.noise

U, Q, F, I, L = np.uint32, np.uint64, np.float32, np.int32, np.int64  # noqa: E741

_OPTIONS: dict[str, Any] = dict(error_model="numpy", boundscheck=False)
_FOLDER = Path(__file__).parent
_SOURCES = [*sorted(_FOLDER.glob("cpu_*.py")), _FOLDER / "matched.py", _FOLDER / "rounding.py"]
_DIGEST = hashlib.blake2b(b"".join(path.read_bytes() for path in _SOURCES), digest_size=6).hexdigest()
_SECONDS = 5  # measured: perturb and update for one element type, on a core of 2024


class _Announcer(event.Listener):
    """Hears a kernel being compiled (not: loaded) for the first time in this process, and says so.

    A wait of seconds that nobody announced looks like a hang.
    """

    announced = False
    how_often = "once"

    def on_start(self, event: Any) -> None:
        if not self.announced and event.data["dispatcher"].py_func.__module__.startswith("mezo.noise."):
            self.announced = True
            mezo.noise.announce(
                f"compiling the noise kernels for this CPU, {self.how_often} (about {_SECONDS} s)"
            )

    def on_end(self, event: Any) -> None: ...


class Native:
    """A C function `void (int64 address)`, which threads of any library may call. Compiled when first used."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self.function = function

    @cached_property
    def callback(self) -> Any:
        signature = types.void(types.int64)
        try:
            return cfunc(signature, cache=True, **_OPTIONS)(self.function)
        except RuntimeError:  # no folder to keep it in
            _Announcer.how_often = "in every run: set NUMBA_CACHE_DIR to a folder that can be written"
            return cfunc(signature, **_OPTIONS)(self.function)

    @cached_property
    def address(self) -> int:
        return self.callback.address

    @cached_property
    def call(self) -> Callable[[int], None]:
        """To run it on this thread, without the interpreter lock."""
        return ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.address)


def kernel(function: Callable[[int], None]) -> Native:
    """Decorate a module-level function that is given one address."""
    function.__qualname__ = f"{function.__name__}_{_DIGEST}"
    return Native(function)


inline: Any = njit(forceinline=True, **_OPTIONS)


event.register("numba:compile", _Announcer())


def _bits(typing: Any, x: Any) -> Any:
    return types.uint32(types.float32), lambda context, b, sig, args: b.bitcast(args[0], ir.IntType(32))


def _from_bits(typing: Any, x: Any) -> Any:
    return types.float32(types.uint32), lambda context, b, sig, args: b.bitcast(args[0], ir.FloatType())


def _from_half(typing: Any, x: Any) -> Any:
    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.fpext(b.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), code


def _to_half(typing: Any, x: Any) -> Any:
    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.bitcast(b.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), code


def _pointer(typing: Any, address: Any, like: Any) -> Any:
    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        return b.inttoptr(args[0], context.get_value_type(sig.return_type))

    return types.CPointer(like)(types.int64, like), code


def _atomic_add(typing: Any, address: Any, amount: Any) -> Any:
    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        place = b.inttoptr(args[0], ir.IntType(64).as_pointer())
        return b.atomic_rmw("add", place, args[1], "monotonic")

    return types.int64(types.int64, types.int64), code


bits: Any = intrinsic(_bits)  # bits(x): float32 -> uint32, the same 32 bits
from_bits: Any = intrinsic(_from_bits)  # from_bits(x): and back
from_half: Any = intrinsic(_from_half)  # from_half(h): the value of float16 bits (int16) as a float32
to_half: Any = intrinsic(_to_half)  # to_half(x): float32 to float16 bits (int16), to nearest even
pointer: Any = intrinsic(_pointer)  # pointer(address, like): to elements of the type of `like`
atomic_add: Any = intrinsic(_atomic_add)  # atomic_add(address, n): the int64 there, before n is added
