"""`mezo.MeZO` in anyone's own loop: any module, any tensors, theta exact under probing."""

import math

import pytest
import torch
from torch import nn

import mezo
from mezo.algorithm import NonFiniteLoss
from mezo.weights.fingerprint import fingerprint


class Awkward(nn.Module):
    """Reads weights in every way a module can: attention that bypasses its projection's forward, a
    raw parameter, a weight used by another module, a convolution, a norm, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.start = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(0.2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) + self.start
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.drop(self.norm(x)) @ self.embed.weight.t()


def problem() -> tuple[Awkward, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = Awkward()
    ids = torch.randint(0, 11, (6, 5))
    return model, ids, torch.randint(0, 11, (6, 5))


def loss_of(model: nn.Module, ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(ids).flatten(0, 1), targets.flatten())


@pytest.mark.parametrize("kind", ["module", "tensors", "walk"])
def test_one_step_is_the_same_however_probes_are_made(kind: str) -> None:
    """Writing theta out, swapping copies, walking in place: one slope (to rounding), one update."""
    model, ids, targets = problem()
    before = fingerprint(model.named_parameters())
    if kind == "tensors":
        opt = mezo.MeZO(model.named_parameters(), lr=0.0, eps=1e-3, seed=5)
    else:
        opt = mezo.MeZO(
            model, lr=0.0, eps=1e-3, seed=5, memory="regenerate" if kind == "walk" else "materialize"
        )
    opt.step(lambda: loss_of(model, ids, targets))
    assert opt.last_update is not None
    assert (fingerprint(model.named_parameters()) == before) == (kind != "walk")
    # float32 losses of order 2 agree to 1e-6, over 2 eps = 2e-3
    assert opt.last_update.directions[0].projected_grad == pytest.approx(SLOPE, abs=2e-3)


def _slope() -> float:
    """(L(theta + eps z) - L(theta - eps z)) / (2 eps) in plain torch; the dropout mask is shared."""
    from mezo import noise
    from mezo.noise.where import Where

    losses = []
    for sign in (1, -1):
        model, ids, targets = problem()
        with torch.no_grad():
            for name, p in model.named_parameters():
                z = torch.empty(1, p.numel())
                noise.fill_(z, Where(noise.tensor_id(name)), noise.derive_seed(5, 0, 0))
                p += sign * 1e-3 * z.view(p.shape)
            losses.append(float(loss_of(model, ids, targets)))
    return (losses[0] - losses[1]) / 2e-3


SLOPE = _slope()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_theta_is_exact_under_probing(dtype: torch.dtype) -> None:
    model, ids, targets = problem()
    model = model.to(dtype)
    before = fingerprint(model.named_parameters())
    opt = mezo.MeZO(model, lr=0.0, eps=1e-2)
    seen = set()
    for _ in range(20):
        seen.add(opt.step(lambda: loss_of(model, ids, targets).float()))
    assert len(seen) > 1
    assert fingerprint(model.named_parameters()) == before


def test_it_learns() -> None:
    model, ids, targets = problem()
    model.eval()
    opt = mezo.MeZO(model, lr=2e-3, eps=1e-3, num_directions=4)
    losses = [opt.step(lambda: loss_of(model, ids, targets)) for _ in range(400)]
    assert losses[-1] < 0.6 * losses[0]


def test_scheduler_and_state() -> None:
    model, ids, targets = problem()
    opt = mezo.MeZO(model, lr=1e-3, seed=3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: 0.5**step)
    rates = []
    for _ in range(3):
        opt.step(lambda: loss_of(model, ids, targets))
        assert opt.last_update is not None
        rates.append(opt.last_update.learning_rate)
        scheduler.step()
    assert rates == [1e-3, 5e-4, 2.5e-4]

    resumed = mezo.MeZO(model, lr=9.0, seed=1)
    resumed.load_state_dict(opt.state_dict())
    resumed.step(lambda: loss_of(model, ids, targets))
    assert resumed.last_update is not None
    assert resumed.last_update.step == 3
    assert resumed.last_update.learning_rate == 1.25e-4


def test_frozen_parameters_stay() -> None:
    model, ids, targets = problem()
    model.embed.requires_grad_(False)
    before = model.embed.weight.clone()
    mezo.MeZO(model, lr=0.1).step(lambda: loss_of(model, ids, targets))
    assert torch.equal(model.embed.weight, before)


def test_a_loss_that_is_not_finite_never_reaches_the_weights() -> None:
    model, _, _ = problem()
    before = fingerprint(model.named_parameters())
    opt = mezo.MeZO(model, lr=0.1)
    with pytest.raises(NonFiniteLoss, match="step 0: the loss is not finite"):
        opt.step(lambda: math.nan)
    assert fingerprint(model.named_parameters()) == before


def test_no_gradient_and_no_graph() -> None:
    model, ids, targets = problem()
    seen: list[bool] = []
    opt = mezo.MeZO(model)

    def closure() -> torch.Tensor:
        loss = loss_of(model, ids, targets)
        seen.append(loss.requires_grad)
        return loss

    opt.step(closure)
    assert seen
    assert not any(seen)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "nothing to tune"),
        ([3], "expected an nn.Module, tensors, or"),
        ([torch.zeros(3, dtype=torch.float64)], "cannot tune a torch.float64 tensor"),
        ([torch.zeros(3, 4).t()], "not contiguous"),
    ],
)
def test_what_cannot_be_tuned(source: list, message: str) -> None:
    with pytest.raises(mezo.MezoError, match=message):
        mezo.MeZO(source)


def test_a_closure_is_needed_and_names_are_checked() -> None:
    model, _, _ = problem()
    with pytest.raises(mezo.MezoError, match="needs a closure"):
        mezo.MeZO(model).step()
    with pytest.raises(mezo.MezoError, match="did you mean 'two-point'"):
        mezo.MeZO(model, estimator="twopoint")
