"""Where a step's time went, as a table."""

from collections.abc import Mapping, Sequence

from mezo.util.profiling import WARM_UP, median_step_ms, shares


def table(steps: Sequence[Mapping[str, float]]) -> str:
    """Lines of name, median milliseconds and share, from the seconds by name of at least one step."""
    left_out = WARM_UP if len(steps) > WARM_UP else 0
    counted = len(steps) - left_out
    of = f"{counted} step{'s' if counted > 1 else ''}" + (f" after the first {left_out}" if left_out else "")
    rows = [("a step", f"{median_step_ms(steps):.1f}", "")]
    rows += [(s.name, f"{s.median_ms:.1f}", f"{100 * s.share:.1f} %") for s in shares(steps)]
    lines = [f"{'profile':<9} {'median ms':>10} {'share':>8}   ({of})"]
    return "\n".join([*lines, *(f"{name:<9} {ms:>10} {share:>8}".rstrip() for name, ms, share in rows)])
