"""The start's log-probabilities of both answers of each row, for objectives that compare with them."""

from collections.abc import Callable, Sequence

from mezo.config import MeZOConfig
from mezo.data import EncodedDataset
from mezo.data.references import Referenced, References, key_of
from mezo.engines.base import Engine
from mezo.errors import MezoError
from mezo.scoring import Example, candidate_sums, pose
from mezo.training.evaluation import in_chunks


def referenced(
    engine: Engine,
    sets: Sequence[Sequence[Example]],
    known: References,
    note: Callable[[str], None] = lambda said: None,
) -> References:
    """Those of all examples of the sets: the known ones, and for the others what the engine says at theta.

    Args:
        engine: whose theta is still where the run starts.
        sets: each is scored as an evaluation scores it, so that at theta the difference from it is 0 to the last bit.
        known: of an earlier part of the run.
        note: called with a message for people where there is something to compute.

    Raises MezoError if an example has no two answers, or a log-probability is not finite.
    """
    table, count = dict(known.table), 0
    for examples in sets:
        new = [e for e in examples if key_of(e) not in table]
        if not new:
            continue
        if not count:
            note("computing the start's log-probabilities of the answers, once")
        count += len(new)
        for members, values in _sums(engine, new):
            for example, found in zip(members, values, strict=True):
                if len(found) != 2 or not all(abs(each) < float("inf") for each in found):
                    raise MezoError(
                        f"expected a finite log-probability of two answers at the start of the run, found {found} for "
                        f"{dict(example.fields or {})!r:.200}: objective dpo compares a chosen with a rejected answer"
                    )
                table[key_of(example)] = (found[0], found[1])
    return References(table)


def with_references(dataset: EncodedDataset, references: References) -> EncodedDataset:
    return EncodedDataset(Referenced(dataset.examples, references.of))


def drawn_of(dataset: EncodedDataset, config: MeZOConfig) -> Sequence[Example]:
    """The examples that the run's steps draw; all of them, in order, where a run sees all."""
    size = min(config.batch_size, len(dataset))
    step = size * min(config.gradient_accumulation, len(dataset) // size)
    if config.num_steps * step >= len(dataset):
        return dataset
    drawn = {i for n in range(config.num_steps) for i in dataset.batch_indices(n, step, config.seed)}
    return [dataset[i] for i in sorted(drawn)]


def _sums(engine: Engine, examples: Sequence[Example]) -> list[tuple[list[Example], list[list[float]]]]:
    chunks = [[examples[i] for i in places] for places in in_chunks(examples)]
    posed = [pose(chunk) for chunk in chunks]
    found = []
    for chunk, batch, (logprobs,) in zip(chunks, posed, engine.logprobs_each(posed), strict=True):
        values: list[list[float]] = [[] for _ in chunk]
        for number, value in zip(batch.candidate_example, candidate_sums(batch, logprobs), strict=True):
            values[number].append(float(value))
        found.append((chunk, values))
    return found
