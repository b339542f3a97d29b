"""A snapshot comes back as it was, or is known to be damaged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mezo.errors import MezoError
from mezo.runs import snapshots
from mezo.runs.snapshots import Snapshot, State
from mezo.util.packing import pack, unpack
from mezo.weights.weights import Weights

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | st.integers(0, 5).map(lambda n: torch.arange(n, dtype=torch.bfloat16)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("__")), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b


def weights(seed: int = 0) -> Weights:
    torch.manual_seed(seed)
    return Weights([("a", torch.randn(3, 4)), ("b.c", torch.randn(5).to(torch.bfloat16))])


def state(step: int, **changes: Any) -> State:
    return State(
        **{
            **dict(
                step=step, trajectory="t", estimator=None, optimizer_name="sgd", optimizer=None, heading=None
            ),
            **changes,
        }
    )


@settings(max_examples=30)
@given(plain)
def test_whatever_a_state_is_made_of_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    folder = tmp_path_factory.mktemp("s")
    path = snapshots.write(folder, weights(), state(3, estimator=value, optimizer=value))
    found = Snapshot(path).restore_(weights(1))
    assert same(found.estimator, value)
    assert same(found.optimizer, value)
    tensors: dict[str, torch.Tensor] = {}
    assert same(unpack(pack(value, tensors, "x"), tensors), value)


def test_theta_and_m_come_back(tmp_path: Path) -> None:
    before, after = weights(), weights(1)
    before.heading.of(0).normal_()
    path = snapshots.write(tmp_path / "snapshots", before, state(3, heading=before.heading.pack()))
    Snapshot(path).restore_(after)
    assert after.checksum() == before.checksum()
    assert torch.equal(after.heading.of(0), before.heading.of(0))


def test_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 1000, 99_999_999, 100_000_000):
        snapshots.write(tmp_path, weights(), state(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-100000000.safetensors",
        "step-99999999.safetensors",
    ]
    found = snapshots.newest(tmp_path, lambda snapshot: True)
    assert found is not None
    assert found.step == 100_000_000
    snapshots.drop(tmp_path, after=99_999_999)
    found = snapshots.newest(tmp_path, lambda snapshot: True)
    assert found is not None
    assert found.step == 99_999_999
    assert snapshots.newest(tmp_path, lambda snapshot: False) is None


def test_a_flipped_bit_anywhere_is_seen(tmp_path: Path) -> None:
    optimizer = {"m": {"a": torch.ones(4)}}
    path = snapshots.write(tmp_path, weights(), state(3, estimator=(1.5, (2.0,)), optimizer=optimizer))
    raw = path.read_bytes()
    for bit in range(0, 8 * len(raw), 41):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(bytes(damaged))
        try:
            found = Snapshot(path)
        except MezoError as error:
            assert str(path) in str(error)  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:  # only what is no content: a name of the metadata's that nobody reads
            assert same(found.restore_(weights()).optimizer, optimizer)
    notes: list[str] = []
    path.write_bytes(raw[:-1])
    assert snapshots.newest(tmp_path, lambda snapshot: True, notes.append) is None
    assert "not a readable snapshot" in notes[0]


def test_a_snapshot_of_other_weights_is_refused(tmp_path: Path) -> None:
    path = snapshots.write(tmp_path, weights(), state(3))
    with pytest.raises(
        MezoError, match=r"expected a of shape \(4, 3\), found \(3, 4\): it is of another model"
    ):
        Snapshot(path).restore_(Weights([("a", torch.zeros(4, 3))]))
    with pytest.raises(MezoError, match=r"expected z of shape \(1,\), found none"):
        Snapshot(path).restore_(Weights([("z", torch.zeros(1))]))


@pytest.mark.parametrize("value", [object(), {1: 2}, {"__tensor__": "x"}, {"a": {3}}])
def test_what_would_not_come_back_is_not_packed(value: Any) -> None:
    with pytest.raises(TypeError, match="expected"):
        pack(value, {}, "x")
