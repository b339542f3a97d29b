"""Broken copies of sound files: bytes turned, cut off, doubled, put in; drawn by number."""

from collections.abc import Iterator
from random import Random

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
