from __future__ import annotations

import random

import numpy as np
import torch

from metaprune_cli.training.seeds import derive, seed_everything, seeded


def test_derived_seeds_are_the_same_everywhere() -> None:
    assert derive(0, "epoch", 3) == 1843803448533167844


def test_derived_seeds_differ_by_seed_and_by_purpose() -> None:
    seeds = {derive(seed, *parts) for seed in range(4) for parts in [(), (1,), ("1",), (1, 1), (11,), ("a", 1)]}
    assert len(seeds) == 4 * 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_every_global_generator_is_seeded() -> None:
    def draws() -> tuple[float, float, float]:
        seed_everything(derive(7))
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    assert draws() == draws()


def test_a_seeded_block_leaves_the_global_generator_as_it_was() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1, torch.device("cpu")):
        first = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1, torch.device("cpu")):
        assert torch.equal(torch.rand(3), first)
