"""Pruning never ends in a crash: what breaks is locked, with its reason, and the plan is made again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.errors import InputError, TargetError
from metaprune_cli.graph import encode
from metaprune_cli.graph.trials import at_fault
from metaprune_cli.pruning import check


class Padded(nn.Module):
    """A shortcut padded with channels of zeros, as in CIFAR ResNets (option A)."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.c, self.fc = nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.Linear(2 * width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        quarter = self.b.out_channels // 4
        y = F.relu(self.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))
        assert quarter > 0
        out: Tensor = self.fc((y + self.c(y)).mean((2, 3)))
        return out


class BothOrNone(nn.Module):
    """Either of two layers may shrink, both may not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if float(h.sum()) > 1e9:  # control flow on numbers that parameters make: there is no program
            return x
        g = self.b(h).relu()
        assert h.size(1) + g.size(1) > 21, "together they are too narrow"
        out: Tensor = self.c(g)
        return out


@pytest.mark.parametrize("scope", ["global", "family"])
@pytest.mark.parametrize("speedup", [1.5, 2.5])
def test_padded_shortcuts_prune_to_every_speed_up(speedup: float, scope: str) -> None:
    torch.manual_seed(0)
    model, x = Padded().eval(), torch.randn(1, 3, 8, 8)
    pruned = mp.prune(model, x, speedup=speedup, scope=scope)  # type: ignore[arg-type]
    assert mp.count_macs(model, x) >= speedup * mp.count_macs(pruned.model, x)
    assert pruned.checked.error is not None


def test_what_breaks_only_together_is_locked_with_its_reason() -> None:
    torch.manual_seed(0)
    model, x = BothOrNone().eval(), torch.randn(1, 4)
    pruned = mp.prune(model, x, speedup=2.0)
    (held,) = pruned.plan.held
    assert "together they are too narrow" in held.reason
    assert pruned.report["held"] == [{"family": held.family, "reason": held.reason}]
    (family,) = [f for f in pruned.plan.families if f.name == held.family]
    assert (family.locked, family.after) == (held.reason, family.before)
    assert pruned.plan.speedup >= 2


def test_planning_for_a_class_ends_where_families_break_together_alone() -> None:
    torch.manual_seed(0)
    model, x = BothOrNone().eval(), torch.randn(1, 4)
    pruned = mp.prune(model, x, speedup=2.0, route="class")
    assert pruned.plan.speedup >= 2


def test_a_target_out_of_reach_says_what_was_locked() -> None:
    torch.manual_seed(0)
    with pytest.raises(TargetError, match="together they are too narrow") as caught:
        mp.prune(BothOrNone().eval(), torch.randn(1, 4), speedup=6.0)
    assert caught.value.exit_code == 3


def test_a_model_that_draws_is_not_comparable() -> None:
    class Drawing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            out: Tensor = self.b((h + torch.rand_like(h)).relu())
            return out

    pruned = mp.prune(Drawing().eval(), torch.randn(1, 4), speedup=2.0)
    assert pruned.checked.reason == "the model draws random numbers in evaluation mode"


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (np.random.rand, None),
        (random.SystemRandom().random, "the model draws random numbers beside those of torch"),
    ],
)
def test_a_model_that_draws_in_training_without_a_seed_is_not_comparable_there(
    draw: Callable[[], float], reason: str | None
) -> None:
    class Masking(nn.Module):
        """Hides a part of what it hears in training, as speech models do with NumPy's numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.b(self.a(x).relu())
            return out * draw() if self.training else out

    model, x = Masking().eval(), torch.randn(1, 4)
    pruned = mp.prune(model, x, speedup=2.0)
    assert pruned.checked.error is not None
    graph = encode(model, x)
    np.random.seed(5)
    found = check(model, pruned.model, graph, pruned.plan, x, training=True)
    assert (found.reason, found.error is None) == (reason, reason is not None)
    after = np.random.rand()
    np.random.seed(5)
    assert after == np.random.rand()  # as if the check had drawn nothing


def test_an_operation_that_cannot_be_followed_is_not_blamed_on_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a rule of ours")

    monkeypatch.setattr("metaprune_cli.graph.trace.passes.rule_of", lambda _: fails)
    with pytest.raises(InputError, match="runs on the example inputs, but metaprune cannot follow") as caught:
        encode(nn.Linear(3, 2), torch.randn(1, 3))
    assert "a rule of ours" in str(caught.value)


@given(st.sets(st.integers(0, 30)), st.integers(0, 30))
def test_those_at_fault_are_found_and_no_others(alone: set[int], partner: int) -> None:
    """Some fail by themselves, and the last fails beside one other."""
    trials = 0

    def failure(parts: Sequence[int]) -> str | None:
        nonlocal trials
        trials += 1
        met = sorted(alone & set(parts))
        together = {partner, 31} <= set(parts)
        return f"fails with {met[0]}" if met else "fails together" if together else None

    found = at_fault(range(32), failure)
    expected = sorted(alone) + ([] if partner in alone else [31])
    assert found is not None
    assert [part for part, _ in found] == expected
    assert trials <= 2 + 6 * (len(expected) + 1)


# Networks composed of the kinds that people write: each takes (n, c, 8, 8) and returns it with other channels.


class Kind(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = self.out = width
        self.a, self.b = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)


class Residual(Kind):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(self.a(x).relu())


class PaddedChannels(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = width + 4
        self.up = nn.Conv2d(width, width + 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 0, 2, 2)) + self.up(x.relu())


class Concatenated(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = 2 * width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x).relu(), self.b(x)], 1)


class JoinedZeros(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = 2 * width
        self.up = nn.Conv2d(width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)], 1) + self.up(x).relu()


class Halved(Kind):
    def forward(self, x: Tensor) -> Tensor:
        one, two = self.a(x).chunk(2, 1)
        return torch.cat([two.relu(), one], 1) + x


class SplitUnevenly(Kind):
    def forward(self, x: Tensor) -> Tensor:
        one, two = self.a(x).split([3, self.width - 3], 1)
        return self.b(torch.cat([two, one], 1).relu())


class Depthwise(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.depth, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.depth(x)).relu())


class FixedView(Kind):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).view(-1, 2, self.width // 2, 64).transpose(1, 2).reshape(-1, self.width, 8, 8))


class Attention(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.qkv, self.o = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(-1, 64, 3, 2, self.width // 2).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 64, self.width)
        return (tokens + self.o(attended)).transpose(1, 2).reshape(-1, self.width, 8, 8)


class Gate(Kind):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.b(x.mean((2, 3), keepdim=True)).sigmoid()


class Grouped(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.g, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=2), nn.GroupNorm(2, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.norm(self.g(x)).relu()) + x


class Shuffled(Kind):
    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = width // 4 * 4
        self.up = nn.Conv2d(width, self.out * 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pixel_shuffle(self.up(x), 2), 2)


class DualPath(Kind):
    """Part of the channels is added to, part is grown."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = width + 4
        self.up = nn.Conv2d(width, width + 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.up(x).relu()
        return torch.cat([x + y[:, : self.width], y[:, self.width :]], 1)


KINDS: tuple[Callable[[int], nn.Module], ...] = (
    *(Residual, PaddedChannels, Concatenated, JoinedZeros, Halved, SplitUnevenly, Depthwise),
    *(FixedView, Attention, Gate, Grouped, Shuffled, DualPath),
)


def composed(kinds: Sequence[int], seed: int) -> nn.Sequential:
    """A stem, some kinds one after the other, and a head."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    width = 8
    for number in kinds:
        kind: nn.Module = KINDS[number](width)
        layers += [kind, nn.ReLU()]
        width = int(kind.out)  # type: ignore[arg-type]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)]
    return nn.Sequential(*layers, *head).eval()


def held_to_the_promise(kinds: Sequence[int], seed: int, speedup: float) -> None:
    model, x = composed(kinds, seed), torch.randn(1, 3, 8, 8)
    scope = random.Random(seed).choice(["global", "family"])
    try:
        pruned = mp.prune(model, x, speedup=speedup, scope=scope)  # type: ignore[arg-type]
    except TargetError:
        return
    assert pruned.plan.speedup >= speedup
    assert mp.count_macs(pruned.model, x) == pruned.plan.macs_after
    assert pruned.checked.error is not None or pruned.checked.reason


@pytest.mark.parametrize("speedup", [1.5, 2.5])
@pytest.mark.parametrize("number", range(len(KINDS)))
def test_every_kind_meets_the_target_or_says_that_it_cannot(number: int, speedup: float) -> None:
    held_to_the_promise([number], 0, speedup)


composition = st.lists(st.integers(0, len(KINDS) - 1), min_size=2, max_size=4)


@given(composition, st.integers(0, 3), st.sampled_from([1.5, 2.5]))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_composition_meets_the_target_or_says_that_it_cannot(kinds: list[int], seed: int, speedup: float) -> None:
    held_to_the_promise(kinds, seed, speedup)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@given(composition, st.integers(0, 1000), st.sampled_from([1.5, 2.5, 4.0]))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_three_hundred_compositions(kinds: list[int], seed: int, speedup: float) -> None:
    held_to_the_promise(kinds, seed, speedup)
