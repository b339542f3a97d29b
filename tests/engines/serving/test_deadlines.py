"""A pipe to an engine: an exchange ends by its time, whatever the other side does."""

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mezo.engines.serving.wire import Patient, receive, send
from mezo.errors import MezoError


class Other:
    """The process at the other end."""

    status: int | None = None

    def poll(self) -> int | None:
        return self.status


class Ends:
    def __init__(self) -> None:
        theirs, ours = os.pipe()
        reads, writes = os.pipe()
        self.reads, self.writes = os.fdopen(reads, "rb", buffering=0), os.fdopen(ours, "wb", buffering=0)
        self.their_in, self.their_out = os.fdopen(theirs, "rb"), os.fdopen(writes, "wb", buffering=0)
        for end in (self.reads, self.writes):
            os.set_blocking(end.fileno(), False)
        self.other = Other()

    def patient(self, seconds: float) -> Any:
        return Patient(self.reads, self.writes, time.monotonic() + seconds, self.other)  # type: ignore[arg-type]

    def close(self) -> None:
        for end in (self.reads, self.writes, self.their_in, self.their_out):
            end.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    found = Ends()
    yield found
    found.close()


def test_a_message_longer_than_a_pipe_holds_crosses_both_ways(ends: Ends) -> None:
    long = "x" * 300_000

    tensors = {"many": torch.arange(100_000.0).reshape(100, 1000), "none": torch.empty(0, 3)}

    def echo() -> None:
        value, got = receive(ends.their_in)
        send(ends.their_out, value, got)

    thread = threading.Thread(target=echo)
    thread.start()
    pipe = ends.patient(60)
    send(pipe, {"text": long}, tensors)
    value, got = receive(pipe)
    thread.join()
    assert value == {"text": long}
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)


def test_an_answer_that_trickles_ends_at_the_limit(ends: Ends) -> None:
    ended = threading.Event()

    def trickle() -> None:
        ends.their_out.write((1 << 20).to_bytes(8, "little"))
        while not ended.wait(0.01):
            ends.their_out.write(b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        with pytest.raises(TimeoutError):
            receive(ends.patient(0.1))
    finally:
        ended.set()
        thread.join()


def test_one_that_does_not_listen_is_left_at_the_limit(ends: Ends) -> None:
    with pytest.raises(TimeoutError):
        send(ends.patient(0.1), {"text": "x" * 300_000})


def test_one_that_died_is_noticed_while_it_is_written_to(ends: Ends) -> None:
    ends.other.status = -9  # it has the pipe's end no more, but a worker of its may
    with pytest.raises(BrokenPipeError):
        send(ends.patient(60), {"text": "x" * 300_000})


def test_what_a_message_claims_to_have_is_not_set_aside(ends: Ends) -> None:
    ends.their_out.write((1 << 29).to_bytes(8, "little") + b"{")
    ends.their_out.close()
    with pytest.raises(EOFError, match="found 1"):
        receive(ends.patient(60))
    other = Ends()
    other.their_out.write((1 << 40).to_bytes(8, "little"))
    with pytest.raises(MezoError, match="no message of an engine"):
        receive(other.patient(60))
    other.close()
