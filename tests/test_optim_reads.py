"""However a closure reads its weights, `mezo.MeZO` measures the slope that theta + eps z written out has."""

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import mezo
from mezo.algorithm import NonFiniteLoss, draw_of
from mezo.engines.perturb.raw_reads import RawReads, knowing
from mezo.events import MezoWarning
from mezo.types import Probe
from mezo.weights.weights import Weights

Loss = Callable[[], Any]
EPS = 1e-2


@torch.no_grad()
def written_out(opt: mezo.MeZO, loss: Loss) -> float:
    """The slope of the next step, with theta + eps z in the parameters' own memory."""
    seed, eps = draw_of(opt.seed, opt.steps_done, 1).seeds[0], opt.param_groups[0]["eps"]
    z = opt.weights.zeros()
    z.add_noise_(Probe(seed, 1.0))
    theta, random, found = (
        [t.tensor.detach().clone() for t in opt.weights.tunables],
        torch.get_rng_state(),
        [],
    )
    for sign in (1, -1):
        for t, was, of_z in zip(opt.weights.tunables, theta, z.tunables, strict=True):
            t.tensor.copy_(was + sign * eps * of_z.tensor.view_as(was))
        torch.set_rng_state(random)
        found.append(float(loss()))
    for t, was in zip(opt.weights.tunables, theta, strict=True):
        t.tensor.copy_(was)
    torch.set_rng_state(random)
    return (found[0] - found[1]) / (2 * eps)


def check(opt: mezo.MeZO, loss: Loss, steps: int = 2) -> None:
    for _ in range(steps):
        expected, theta = written_out(opt, loss), [t.tensor.clone() for t in opt.weights.tunables]
        opt.step(loss)
        assert opt.last_update is not None
        # float32 losses of order up to 100 differ by 1e-5 between two orders of summing, over 2 eps = 2e-2
        assert opt.last_update.directions[0].projected_grad == pytest.approx(expected, rel=2e-3, abs=2e-3)
        if opt.param_groups[0]["lr"] == 0:
            assert all(torch.equal(t.tensor, was) for t, was in zip(opt.weights.tunables, theta, strict=True))


def optimizer(model: Any, **settings: Any) -> mezo.MeZO:
    return mezo.MeZO(model, **dict[str, Any]({"lr": 0.0, "eps": EPS, "seed": 3, **settings}))


class Reads(nn.Module):
    """A small model; `how` is what it does besides calling its layers."""

    def __init__(self, how: Callable[["Reads", torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(20, 8), nn.Embedding(5, 8)
        self.line = nn.Linear(8, 4, bias=False)
        self.own = nn.ParameterDict({"t": nn.Parameter(torch.randn(8))})
        self.how = how
        self.late = False

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x if self.how is None else self.how(self, x)
        return F.linear(x, self.line.weight) if self.late else self.line(x)


IDS = torch.arange(30).view(6, 5) % 20


def iadd(m: Reads, x: torch.Tensor) -> torch.Tensor:
    x += m.place.weight
    return x


def set_item(m: Reads, x: torch.Tensor) -> torch.Tensor:
    x[:, 0] = m.own["t"]
    return x


def set_mask(m: Reads, x: torch.Tensor) -> torch.Tensor:
    x[IDS == 3] = m.own["t"]
    return x


def out(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return torch.add(x, m.place.weight, out=torch.empty_like(x))


def listed(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return x + torch.stack([m.own["t"], m.own["t"]]).sum(0)


def copied(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return x.copy_(m.place.weight.expand_as(x)) + m.embed(IDS)


def by_numpy(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return x + torch.from_numpy(np.asarray(m.own["t"].detach().numpy() * 2))


def by_list(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return x + torch.tensor(m.own["t"].tolist())


def by_einsum(m: Reads, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("bth,th->bth", x, m.place.weight)


HOW = [iadd, set_item, set_mask, out, listed, copied, by_numpy, by_list, by_einsum]


@pytest.mark.parametrize("how", HOW, ids=lambda f: f.__name__)
def test_a_weight_read_past_its_module(how: Any) -> None:
    model = Reads(how)
    check(optimizer(model), lambda: model(IDS).pow(2).sum())


def test_parameters_that_the_closure_captured() -> None:
    model = Reads()
    parameters = list(model.parameters())
    check(optimizer(model), lambda: model(IDS).pow(2).mean() + 5 * sum(p.pow(2).sum() for p in parameters))


def test_parameters_that_are_views_of_a_flat_buffer() -> None:
    model = Reads()
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    start = 0
    for p in model.parameters():
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    check(optimizer(model), lambda: model(IDS).pow(2).sum() + flat.pow(2).sum())
    check(optimizer(model, lr=1e-4), lambda: model(IDS).pow(2).sum())


def test_a_flat_buffer_names_only_what_was_read() -> None:
    flat = torch.randn(12)
    weights = Weights([("a", flat[:4]), ("b", flat[4:])])
    with RawReads(weights) as watch:
        _ = flat[:3] + 1
    assert watch.read == {"a"}


def test_a_tied_weight_in_a_list() -> None:
    model = Reads()
    model.tied = [model.embed.weight]  # type: ignore[assignment]
    check(optimizer(model), lambda: (model.embed(IDS) @ model.tied[0].t()).pow(2).mean())  # type: ignore[index]


def test_a_read_that_begins_in_a_later_step() -> None:
    model = Reads()
    opt = optimizer(model)
    check(opt, lambda: model(IDS).pow(2).sum(), steps=1)
    model.late = True
    check(opt, lambda: model(IDS).pow(2).sum(), steps=1)


@pytest.mark.filterwarnings("error::mezo.events.MezoWarning")
def test_shapes_views_and_types_are_no_reads() -> None:
    model = Reads()
    weights = Weights(model.named_parameters())
    w = model.line.weight
    with RawReads(weights) as watch, torch.no_grad():
        _ = w.shape, w.dtype, w.device, w.size(0), w.t().view(8, 4), w.detach(), w[0], len(w), w.data
        _ = (
            torch.empty_like(w),
            torch.zeros_like(w),
            w.new_empty(3),
            w.chunk(2),
            w.unbind(),
            w.is_contiguous(),
        )
        _ = model.line.weight.numel(), w.stride(), torch.zeros(1).expand_as(w)
    assert not watch.read


def test_other_threads_that_know_their_reads_blind_nobody() -> None:
    """Two threads that enter and leave in turn, as ranks of one process do."""
    weights = Weights([("a", torch.randn(4))])
    first, second = threading.Event(), threading.Event()

    def other() -> None:
        with knowing():
            first.set()
            second.wait()

    thread = threading.Thread(target=other)
    thread.start()
    first.wait()
    with knowing():
        second.set()
        thread.join()
    with RawReads(weights) as watch:
        _ = weights.tunables[0].tensor + 1
    assert watch.read == {"a"}


def test_what_nobody_can_watch_is_found_by_the_audit() -> None:
    """A NumPy view that was made before: no operation of torch reads it."""
    model = Reads()
    view = model.own["t"].detach().numpy()
    opt = optimizer(model, lr=1e-4)
    loss = lambda: float(model(IDS).pow(2).mean()) + float((view**2).sum())  # noqa: E731
    expected = written_out(opt, loss)
    with pytest.warns(MezoWarning, match="cannot be followed"):
        opt.step(loss)
    assert opt.last_update is not None
    assert opt.last_update.directions[0].projected_grad == pytest.approx(expected, rel=2e-3)
    check(opt, loss)


@pytest.mark.filterwarnings("error::mezo.events.MezoWarning")
def test_a_closure_with_noise_of_its_own_alarms_nobody() -> None:
    drawn = np.random.RandomState(0)
    model = Reads()
    optimizer(model).step(lambda: float(model(IDS).pow(2).mean()) + drawn.rand())


def test_a_forward_on_an_instance_is_used_and_stays() -> None:
    model = Reads()
    mine = lambda x, old=model.line.forward: 3 * old(x)  # noqa: E731
    model.line.forward = mine  # type: ignore[method-assign]
    model.embed.forward = lambda ids, old=model.embed.forward: old(ids).roll(1, 0)  # type: ignore[method-assign]
    opt = optimizer(model)
    check(opt, lambda: model(IDS).pow(2).sum())
    assert model.line.forward is mine

    def fails() -> None:
        model(IDS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opt.step(fails)
    assert model.line.forward is mine
    assert "forward" not in model.place.__dict__


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.clamp_(-0.1, 0.1),
        lambda w: torch.mul(w, 0.5, out=w.detach()),
        lambda w: w.view(-1).__setitem__(0, 0.0),
        lambda w: w.detach().__imul__(0.5),
    ],
)
def test_a_loss_that_writes_its_weights_is_refused_before_it_does(write: Any) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(8, 4), torch.randn(6, 8)
    before = model.weight.detach().clone()

    def loss() -> torch.Tensor:
        write(model.weight)
        return model(x).sum()

    with pytest.raises(mezo.MezoError, match="writes into the tuned tensor weight"):
        optimizer(model).step(loss)
    assert torch.equal(model.weight, before)


@pytest.mark.filterwarnings("error::mezo.events.MezoWarning")
def test_autocast_is_computed_as_torch_does() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), torch.randn(6, 8)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(x).float().pow(2).sum()

    check(optimizer(model), loss)


def test_tensors_in_a_list_and_views_of_them() -> None:
    w = torch.randn(16)
    view, array = w.view(4, 4), w.numpy()
    check(optimizer([w]), lambda: view.pow(2).sum() + float((array**2).sum()))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    "wrap", [torch.jit.script, lambda m: torch.compile(m, backend="eager"), nn.DataParallel]
)
def test_wrapped_modules_are_right_and_see_the_same_noise(wrap: Any) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 4))
    wrapped, x = wrap(plain), torch.randn(6, 8)
    opt = optimizer(wrapped)
    assert [t.name for t in opt.weights.tunables] == [t.name for t in mezo.MeZO(plain).weights.tunables]
    check(opt, lambda: wrapped(x).pow(2).sum())


@pytest.mark.parametrize("training", [True, False])
def test_buffers_are_put_back_after_each_probe(training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)).train(training)
    x, before = torch.randn(10, 8), {k: v.clone() for k, v in model.named_buffers()}
    opt, seen = optimizer(model), []

    def loss() -> torch.Tensor:
        seen.append([v.clone() for v in model.buffers()])
        return model(x).pow(2).sum()

    opt.step(loss)
    for k, v in model.named_buffers():
        assert torch.equal(v, before[k])
    assert all(all(torch.equal(a, b) for a, b in zip(seen[0], s, strict=True)) for s in seen)
    mean = dict(model.named_buffers())["1.running_mean"]
    mean.fill_(2.0)
    opt.step(loss)
    assert mean.eq(2).all()  # what the person writes stays


@pytest.mark.parametrize(
    "settings", [{"lr": math.nan}, {"lr": -1.0}, {"weight_decay": -0.1}, {"eps": 0.0}, {"eps": math.inf}, {"lr": math.inf}]
)  # fmt: skip
def test_settings_that_no_step_can_be_made_with(settings: dict[str, Any]) -> None:
    with pytest.raises(mezo.MezoError, match="expected a finite number"):
        mezo.MeZO(nn.Linear(3, 2), **settings)
    opt, (name, value) = mezo.MeZO(nn.Linear(3, 2)), next(iter(settings.items()))
    opt.param_groups[0][name] = value
    with pytest.raises(mezo.MezoError, match=name):
        opt.step(lambda: 0.0)


def test_groups_cannot_be_added_later() -> None:
    opt = mezo.MeZO(nn.Linear(3, 2))
    with pytest.raises(mezo.MezoError, match="pass all of them"):
        opt.add_param_group({"params": nn.Linear(2, 2).parameters()})


def test_another_type_after_the_first_step_is_one_line() -> None:
    model = nn.Linear(3, 2)
    opt, x = mezo.MeZO(model), torch.randn(4, 3)
    opt.step(lambda: model(x).sum())
    model.to(torch.bfloat16)
    with pytest.raises(mezo.MezoError, match=r"weight was torch.float32 on cpu .*is torch.bfloat16"):
        opt.step(lambda: model(x.bfloat16()).sum())


def test_a_slope_that_overflows_is_called_that() -> None:
    model = nn.Linear(3, 2)
    opt, calls = mezo.MeZO(model, eps=1e-3), []

    def loss() -> float:
        calls.append(1)
        return 3e38 if len(calls) % 2 else -3e38

    opt.engine._audited = True
    with pytest.raises(NonFiniteLoss, match="the slope overflows float32"):
        opt.step(loss)
