"""Which process evaluates what of a step: pure functions of the step, the same on all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mezo.parallel.group import shares
from mezo.types import Probe

Split = Literal["data", "directions", "both"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What one process evaluates in one call: some of the step's probes on one microbatch."""

    batch: int
    probes: tuple[int, ...]


def by_direction(probes: Sequence[Probe]) -> list[tuple[int, ...]]:
    """The places of the probes of each seed, in the order in which seeds appear."""
    found: dict[int, list[int]] = {}
    for place, probe in enumerate(probes):
        found.setdefault(probe.seed, []).append(place)
    return [tuple(places) for places in found.values()]


def units(split: Split, batches: int, probes: Sequence[Probe], among: int) -> list[list[Unit]]:
    """Each process's units, in order.

    Units, and so the losses to the last bit, do not depend on the number of processes: a unit is a whole microbatch
    at all probes ("data"), or at those of one direction ("directions", "both"). "directions" gives a process the same
    directions on every microbatch, "both" cuts the list of (direction, microbatch) evenly.
    """
    if split == "data":
        everything = tuple(range(len(probes)))
        return [[Unit(m, everything) for m in mine] for mine in shares(batches, among)]
    groups = by_direction(probes)
    if split == "directions":
        return [
            [Unit(m, groups[g]) for g in mine for m in range(batches)] for mine in shares(len(groups), among)
        ]
    cells = [Unit(m, group) for group in groups for m in range(batches)]
    return [[cells[i] for i in mine] for mine in shares(len(cells), among)]


def joined(units: Sequence[Unit]) -> list[Unit]:
    """Those that follow each other on one microbatch as one: the same losses, in the same order."""
    found: list[Unit] = []
    for unit in units:
        if found and found[-1].batch == unit.batch:
            found[-1] = Unit(unit.batch, found[-1].probes + unit.probes)
        else:
            found.append(unit)
    return found


def choose(batches: int, directions: int, among: int) -> Split:
    """What to share among processes that were started without a word about it."""
    if batches >= among or directions == 1:
        return "data"
    return "directions" if directions >= among else "both"


def idle(split: Split, batches: int, directions: int, among: int) -> int:
    """How many of the processes have nothing to do in a step of so many microbatches and directions."""
    work = {"data": batches, "directions": directions, "both": batches * directions}[split]
    return max(0, among - work)
