"""Who computes what: the questions of a step dealt out to servers, and servers asked side by side."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from mezo.engines.serving.backend import Ask

T = TypeVar("T")


def shared_out(asks: Sequence[Ask], servers: int) -> list[list[int]]:
    """For each server, the numbers of its questions, in order; every question is in one list.

    Both signs of a direction go to one server, so its rounding cancels in their difference. With fewer such pairs
    than servers, a pair's rows are split, in both adapters alike.
    """
    order = list(dict.fromkeys(ask.adapter for ask in asks))
    pairs = max(1, (len(order) + 1) // 2)
    pair_of = {adapter: number // 2 for number, adapter in enumerate(order)}
    rows: dict[str | None, list[int]] = {adapter: [] for adapter in order}
    for number, ask in enumerate(asks):
        rows[ask.adapter].append(number)
    found: list[list[int]] = [[] for _ in range(servers)]
    for adapter, numbers in rows.items():
        own = _servers_of(pair_of[adapter], pairs, servers)
        for place, server in enumerate(own):
            begin, end = (len(numbers) * n // len(own) for n in (place, place + 1))
            found[server].extend(numbers[begin:end])
    return [sorted(numbers) for numbers in found]


def _servers_of(pair: int, pairs: int, servers: int) -> range:
    """Equal shares: of the pairs for every server, or of the servers for every pair."""
    if pairs >= servers:
        return range(pair * servers // pairs, pair * servers // pairs + 1)
    return range(pair * servers // pairs, (pair + 1) * servers // pairs)


def at_once(calls: Sequence[Callable[[], T]], most: int = 16) -> list[T | Exception]:
    """What each call returned or raised, in order, running `most` at a time on daemon threads: an interrupt does not
    wait.
    """
    if len(calls) == 1:
        return [_outcome(calls[0])]
    found: dict[int, T | Exception] = {}
    waiting, lock = iter(range(len(calls))), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(waiting, None)
            if number is None:
                return
            found[number] = _outcome(calls[number])

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(most, len(calls)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[number] for number in range(len(calls))]


def _outcome(call: Callable[[], T]) -> T | Exception:
    try:
        return call()
    except Exception as error:
        return error
