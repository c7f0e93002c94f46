"""``mp.DHP`` in a loop of one's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import metaprune as mp

X = torch.zeros(1, 3, 8, 8)
STEPS = 20


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.inner = nn.Conv2d(12, 16, 3, padding=1)
        self.outer = nn.Conv2d(16, 12, 3, padding=1)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        found = self.norm(self.stem(images)).relu()
        found = found + self.outer(self.inner(found).relu())
        logits: Tensor = self.head(found.mean((2, 3)))
        return logits


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def train(d: mp.DHP, steps: int, first: int = 0) -> None:
    optimizer = torch.optim.SGD(d.parameters(), lr=0.05)
    for step in range(first, first + steps):
        drawn = torch.Generator().manual_seed(step)
        images, labels = torch.randn(8, 3, 8, 8, generator=drawn), torch.randint(0, 5, (8,), generator=drawn)
        optimizer.zero_grad()
        nn.functional.cross_entropy(d(images), labels).backward()
        optimizer.step()
        d.shrink_(lr=0.05)


def test_a_loop_of_ones_own_ends_with_a_smaller_network() -> None:
    whole = net()
    before = copy.deepcopy(whole.state_dict())
    d = mp.DHP(whole, X, speedup=2, steps=STEPS)
    assert not d.done
    assert d.speedup == 1
    train(d, STEPS)
    assert d.done
    small = d.eval().finish()
    assert isinstance(small, Net)
    assert mp.count_macs(whole, X) >= 2 * mp.count_macs(small, X)
    assert d.speedup == pytest.approx(mp.count_macs(whole, X) / mp.count_macs(small, X))
    images = torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(small(images), d(images), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(whole.state_dict()), dict(before), rtol=0, atol=0)


def test_its_state_dict_is_all_that_a_checkpoint_needs() -> None:
    d = mp.DHP(net(), X, steps=STEPS, embedding=2)
    train(d, STEPS // 2)
    again = mp.DHP(net(), X, steps=STEPS, embedding=2)
    again.load_state_dict(copy.deepcopy(d.state_dict()))
    for one in (d, again, copy.deepcopy(d)):
        train(one, STEPS - STEPS // 2, STEPS // 2)
    for name, tensor in d.finish().state_dict().items():
        assert torch.equal(again.finish().state_dict()[name], tensor), name


def test_it_cannot_be_finished_before_it_is_done() -> None:
    d = mp.DHP(net(), X, steps=STEPS)
    train(d, 5)
    with pytest.raises(mp.MetapruneError, match=r"A speed-up of 2× was not reached within 5 steps"):
        d.finish()


def test_from_scratch_and_by_threshold() -> None:
    from metaprune_cli.config import DhpSettings

    settings = DhpSettings(strength=20.0, check_every=1)
    d = mp.DHP(net(), X, speedup=1.5, steps=STEPS, start="scratch", shrink="threshold", settings=settings)
    train(d, STEPS)
    assert d.done
    whole, small = mp.count_macs(net(), X), mp.count_macs(d.finish(), X)
    assert 1.5 <= whole / small < 1.8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speedup": 1000}, "cannot be met"),
        ({"steps": 0}, "no steps left in which to shrink"),
        ({"start": "middle"}, "start: expected one of auto, trained, scratch"),
        ({"embedding": -1}, "embedding: expected a number at least 0"),
        ({"rules": (mp.PruningRule("nowhere"),)}, "A rule matches nothing"),
    ],
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, object], words: str) -> None:
    with pytest.raises(mp.MetapruneError, match=words):
        mp.DHP(net(), X, **options)  # type: ignore[arg-type]
