"""What each rounding of a 16-bit update keeps along z, and what noise it adds.

    python -m benchmarks rounding

Weights of 16 M elements, normal with standard deviation 0.05; one update lr * g * z. Kept: the mean of
move * z over lr * g. Noise: the root mean square of move - update, over lr * g.
"""

import argparse

import torch

from mezo import noise
from mezo.noise.where import Where

ROUNDINGS: tuple[noise.Rounding, ...] = ("nearest", "stochastic", "matched")


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.manual_seed(0)
    weights, z, where = torch.randn(4096, 4096) * 0.05, torch.empty(4096, 4096), Where(7)
    noise.fill_(z, where, 11)
    print(f"{'type':9s} {'lr * g':>7s}  " + "  ".join(f"{r + ': kept, noise':>24s}" for r in ROUNDINGS))
    for dtype in (torch.bfloat16, torch.float16):
        for size in (1e-7, 1e-6, 1e-5, 5e-5, 2e-4, 1e-3):
            row = []
            for rounding in ROUNDINGS:
                w = weights.to(dtype)
                before = w.float()
                noise.update_(w, where, [11], [size], rounding=rounding, rounding_seed=5)
                move = w.float() - before
                kept = float((move * z).double().mean()) / size
                added = float((move - size * z).double().square().mean().sqrt()) / size
                row.append(f"{100 * kept:15.1f} %, {added:6.2f}")
            print(f"{str(dtype)[6:]:9s} {size:7.0e}  " + "  ".join(row))
