"""Text from SGLang and vLLM: transformers' where tokens are the likeliest ones, and repeatable where they are drawn.

Texts are compared whole. The likeliest tokens are those of another program wherever no other token is almost as likely,
so rows are such ones (`writes.clear`).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.engines.serving import writes
from tests.engines.serving.conftest import need, settle
from tests.engines.serving.test_http_engines import served
from tests.engines.serving.writes import OVER, PLACES, TOKENS, Both, clear, row

from mezo.engines.http.backend import start as over_http
from mezo.engines.serving import subprocess
from mezo.engines.serving.backend import EngineSpec
from mezo.objectives import OBJECTIVES
from mezo.scoring import Example
from mezo.types import THETA, Probe
from mezo.util.writing import Writing

pytestmark = pytest.mark.engine

# far from theta, so that every adapter writes something else; more of them than the engine has places
FAR = [Probe(seed, sign * 0.1) for seed in (11, 12, 13) for sign in (+1, -1)]
NEAR = [Probe(14, sign * 1e-7) for sign in (+1, -1)]
# the highest temperature that vLLM takes
DRAWN = Writing(TOKENS, (), temperature=2.0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writes.writer(tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module", params=["vllm", "vllm server", "sglang"])
def both(
    request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    engine, _, server = request.param.partition(" ")
    need(engine)
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, engine)
        if not server:
            made = Both.of(checkpoint, partial(subprocess.start, engine))
            yield made
            made.there.close()
            return
        with served(engine, checkpoint, tmp_path_factory.mktemp("log") / "log") as (address, _):
            made = Both.of(
                checkpoint, lambda spec: over_http(EngineSpec(spec.model, servers=(address,)), print)
            )
            yield made
            made.there.close()


def draws_by_seed(both: Both) -> bool:
    """SGLang does only in its deterministic inference, which no CPU has."""
    return getattr(both.there.backend, "engine", "") != "sglang"


def stops(both: Both) -> list[Writing]:
    """Ways to end: strings across the borders of tokens, some inside of others, a control token, end tokens alone.

    None of them is a part of a control token's name: SGLang would find it there.
    """
    pieces = [
        [both.tokenizer.decode(t, skip_special_tokens=True) for t in both.tokens(r.prompt)[0]]
        for r in clear(both)
    ]
    across = [a[-1] + b[0] for _, _, _, a, b, *_ in pieces if a and b]
    inside = [text for own in pieces for text in own[3:6] if len(text) > 2]
    return [
        Writing(TOKENS, ()),
        Writing(TOKENS, tuple(across[:2])),
        Writing(TOKENS, ("<|end|>", across[2])),
        Writing(TOKENS, (inside[0], inside[0][1], inside[1][1:], inside[1])),
        Writing(TOKENS, (" nobody wanted", across[0])),
        Writing(3, ()),
    ]


@pytest.mark.parametrize("which", range(6))
def test_likeliest_tokens_end_as_on_transformers(both: Both, which: int) -> None:
    writing, rows = stops(both)[which], clear(both)
    expected = both.written(both.here, writing, rows)
    assert both.written(both.there, writing, rows) == expected
    longest = both.written(both.here, Writing(TOKENS, ()), rows)
    ended = [a != b for a, b in zip(expected[0], longest[0], strict=True)]
    assert any(ended) == (which != 0)
    assert [both.tokens(r.prompt)[0] for r in rows if OVER in both.tokens(r.prompt)[0]]


def test_adapters_in_one_batch_write_as_one_after_another(both: Both) -> None:
    assert len(FAR) > PLACES
    writing, probes = Writing(TOKENS, ("e !",)), [THETA, *FAR]
    rows = clear(both, probes)
    together = both.written(both.there, writing, rows, probes)
    assert together == [both.written(both.there, writing, rows, [probe])[0] for probe in probes]
    assert together == both.written(both.here, writing, rows, probes)
    assert len({tuple(texts) for texts in together}) == len(probes)


def test_a_seed_repeats_its_text_and_another_writes_another(both: Both) -> None:
    rows = [row(prompt) for prompt in writes.PROMPTS]
    first, second = (both.written(both.there, DRAWN, rows)[0] for _ in range(2))
    if not draws_by_seed(both):
        assert first != second
        return
    assert first == second
    alone = [both.written(both.there, DRAWN, [one])[0][0] for one in rows[:3]]
    assert alone == first[:3]
    other = both.written(both.there, DRAWN, [row(prompt, step=1) for prompt in writes.PROMPTS])[0]
    assert not any(a == b for a, b in zip(first, other, strict=True))
    # both signs of a direction: the same numbers, so the same texts where theta hardly moves
    plus, minus = both.written(both.there, DRAWN, rows, NEAR)
    assert plus == minus == first
    plus, minus = both.written(both.there, DRAWN, rows, FAR[:2])
    assert not any(a == b for a, b in zip(plus, minus, strict=True))


def test_samples_of_a_prompt_differ(both: Both) -> None:
    writing = Writing(TOKENS, (), temperature=2.0, samples=3)
    rows = [row(prompt) for prompt in writes.PROMPTS[:4]]
    (texts,) = both.written(both.there, writing, rows)
    assert len(set(texts)) == 3 * len(rows)


@pytest.mark.parametrize(
    "narrow", [dict(top_k=1), dict(top_p=1e-6), dict(temperature=0.01)], ids=["top_k", "top_p", "temperature"]
)
def test_the_settings_of_drawing_reach_the_engine(both: Both, narrow: dict[str, float]) -> None:
    """Each alone makes drawn tokens the likeliest: at that temperature a gap of 0.3 is e^30 in probability."""
    rows = clear(both, gap=0.3, count=4)
    (likeliest,) = both.written(both.there, Writing(4, ()), rows)
    assert both.written(both.there, Writing(4, (), temperature=2.0), rows) != [likeliest]
    values = {"temperature": 2.0, **narrow}
    assert both.written(both.there, Writing(4, (), **values), rows) == [likeliest]  # type: ignore[arg-type]


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_of_a_batch_along_directions_of_their_own_have_the_slopes_of_transformers(
    both: Both, parts: int
) -> None:
    """A log-probability near -20 is off by some units of 2^-20 in either program; two losses over 2 epsilon."""
    epsilon = 1e-2
    probes = [Probe(20 + k, s * epsilon, rows=(k, parts)) for k in range(parts) for s in (+1, -1)]
    rows = [
        Example(tuple(prompt), ((9 + n,), (60 + n, 61)), n % 2) for n, prompt in enumerate(writes.PROMPTS[:8])
    ]
    slopes = []
    for engine in (both.here, both.there):
        engine.objective = OBJECTIVES["candidate-ce"]
        losses = np.array(engine.dealt_losses(engine.prepare(rows), probes))
        engine.objective = both.kept
        slopes.append((losses[0::2] - losses[1::2]) / (2 * epsilon))
    tolerance = 4 * 2**-18 / (2 * epsilon)
    assert np.ptp(slopes[0]) > 100 * tolerance
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=0, atol=tolerance)


def test_top_k_and_top_p_leave_more_than_one_token(both: Both) -> None:
    """Of the two likeliest tokens, which are about as likely here, both are drawn, and no third one."""
    near = min(writes.PROMPTS, key=lambda prompt: both.tokens(prompt, count=1)[1])
    rows = [row(near, step) for step in range(40)]
    (many,) = both.written(both.there, Writing(1, (), temperature=2.0), rows)
    assert len(set(many)) > 2
    for narrow in (dict(top_k=2), dict(top_p=1e-6 + both.likeliest(near, 2.0))):
        (few,) = both.written(both.there, Writing(1, (), temperature=2.0, **narrow), rows)  # type: ignore[arg-type]
        assert len(set(few)) == 2
