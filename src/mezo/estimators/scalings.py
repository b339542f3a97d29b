"""Scalings made of scalings. Each is made once, because scalings are compared by identity."""

from functools import lru_cache

from mezo.types import Scaling


@lru_cache(maxsize=1024)
def product(a: Scaling | None, b: Scaling | None) -> Scaling | None:
    """a * b, tensor by tensor; None is a scaling of ones."""
    if a is None or b is None:
        return a or b
    return Scaling(f"{a.name} * {b.name}", tuple(x * y for x, y in zip(a.factors, b.factors, strict=True)))


@lru_cache(maxsize=1024)
def union(parts: tuple[Scaling, ...]) -> Scaling:
    """The sum of scalings that move different tensors."""
    if len(parts) == 1:
        return parts[0]
    factors = tuple(map(sum, zip(*(part.factors for part in parts), strict=True)))
    return Scaling(" + ".join(part.name for part in parts), factors)
