"""Broken copies of sound files (bytes turned, cut off, doubled, put in) and of sound values; drawn by number."""

import copy
from collections.abc import Iterator
from random import Random
from typing import Any

# what parsers trip over: numbers past every type, nesting, line ends and codes that are none
_PIECES = (
    b"\x00", b"\xff\xfe", b"1e999", b"-1", b"null", b"NaN", b"[" * 3000, b"{" * 3000, b'"', b"\n", b"\r",
    b": ", b"- ", b"&a *a ", b"!!python/object/apply:os.getcwd []", b"9" * 5000, b"\xed\xa0\x80", b"../../x",
)  # fmt: skip


def broken(sound: bytes, count: int) -> Iterator[bytes]:
    """`count` copies, the same on every call."""
    random = Random(count)
    for _ in range(count):
        data = bytearray(sound)
        for _ in range(random.choice((1, 1, 2, 5))):
            at = random.randrange(len(data) + 1)
            kind = random.randrange(4)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << random.randrange(8)
            elif kind == 1:
                del data[at:]
            elif kind == 2:
                data[at:at] = data[at : at + random.randrange(200)]
            else:
                data[at:at] = random.choice(_PIECES)
        yield bytes(data)


# values that a field may hold where another was expected: of every type, past every range, and texts that mean
# something to a path, a terminal, a page or a format
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**9, 10**18, -(10**18), 10**400, 0.5, 1e308, -1e-320,
    float("nan"), float("inf"), "", "x", "0", "nan", "../../x", "/etc/passwd", "a\x00b", "\x1b[31m", "\ud800",
    "<script>", "(a+)+$", "x" * 10_000, [], {}, [None], [[]], {"": None}, {"a": {"a": {"a": []}}}, [0] * 1000,
)  # fmt: skip


def twisted(sound: Any, count: int) -> Iterator[Any]:
    """`count` copies of JSON values with one to three parts of each replaced, removed or doubled; the same ones
    on every call."""
    random = Random(count)
    for _ in range(count):
        value = copy.deepcopy(sound)
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            value = _twist(value, random)
        yield value


def _twist(value: Any, random: Random) -> Any:
    keys = (
        list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    )
    if not keys or random.random() < 0.1:
        return copy.deepcopy(random.choice(_ODD))
    key = random.choice(keys)
    kind = random.randrange(8)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, list):
        value.append(value[key])
    elif kind == 1 and isinstance(value, dict):
        value[str(random.choice(_ODD))] = value[key]
    elif kind < 5:
        value[key] = copy.deepcopy(random.choice(_ODD))
    else:
        value[key] = _twist(value[key], random)
    return value
