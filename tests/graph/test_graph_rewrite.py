"""A rewritten program computes what the masked original does, or says which operator cannot follow; nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models_people_write import CATALOGUE
from test_graph_people_write import random_plan, traced
from torch import Tensor, nn

from metaprune_cli.errors import MetapruneError
from metaprune_cli.graph import encode
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.trials import follows
from metaprune_cli.pruning import check

NAMES = sorted(CATALOGUE)
EPSILON = 1e-6
"""A program keeps the smallest number of the type it was recorded in, which RMSNorm adds by default."""


@pytest.mark.parametrize("name", NAMES)
def test_the_program_of_every_catalogue_model(name: str) -> None:
    model, inputs, graph = traced(name)
    plan = random_plan(graph, 0.5)
    try:
        small = Captured.of(model, graph, inputs).without(graph, plan.kept)
    except MetapruneError:
        assert follows(model, graph, plan.kept, inputs), "neither the class nor the program follows"
        return
    with torch.no_grad():
        result = check(model, small, graph, plan, inputs)
    assert result.error is None or result.error < EPSILON
    assert result.comparable or not CATALOGUE[name].comparable


def shuffled(x: Tensor) -> Tensor:
    return x[:, torch.tensor([[0, 3, 5], [1, 2, 4]])].flatten(1)


def filled(x: Tensor) -> Tensor:
    y = torch.zeros(x.size(0), 6, dtype=x.dtype)
    y[:, :2].copy_(x[:, :2])
    y[:, 2:] = x[:, 2:] * 2
    return y


def put(x: Tensor) -> Tensor:
    return torch.zeros_like(x).index_put((torch.arange(x.size(0))[:, None], torch.tensor([0, 2])), x[:, [1, 3]]) + x


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "negative indices": lambda x: x[:, [-1, 0, -3]],
    "an index of two dimensions": shuffled,
    "roll": lambda x: x.roll(2, 1) + x,
    "roll alone": lambda x: x.roll((1, -2), (1, 1)),
    "flip": lambda x: x.flip(1),
    "crop": lambda x: F.pad(x, (-1, -2)),
    "crop and pad": lambda x: F.pad(x, (-1, 2)),
    "repeat": lambda x: x.repeat(1, 2),
    "repeat each": lambda x: x.repeat_interleave(2, dim=1),
    "unbind": lambda x: torch.stack([p * i for i, p in enumerate(x.unbind(1))], 1),
    "filled": filled,
    "put": put,
    "gather": lambda x: x.gather(1, torch.tensor([[5, 4, 3, 2, 1, 0]]).expand(x.size(0), -1)),
    "scatter": lambda x: torch.zeros_like(x).scatter(1, torch.tensor([[5, 4, 3, 2, 1, 0]]).expand(x.size(0), -1), x),
    "index copy": lambda x: torch.zeros_like(x).index_copy(1, torch.tensor([5, 4, 3, 2, 1, 0]), x),
    "every second": lambda x: x[:, ::2],
    "windows": lambda x: x.unfold(1, 2, 2).sum(-1),
    "shuffled pixels": lambda x: F.pixel_shuffle(x[:, :4, None, None].expand(-1, -1, 2, 2), 2).flatten(1),
    "shuffled channels": lambda x: F.channel_shuffle(x[:, :, None, None], 2).flatten(1),
    "columns": lambda x: F.unfold(x[:, :, None, None].expand(-1, -1, 2, 2), 2).flatten(1),
    "sorted by a constant": lambda x: x[:, torch.arange(6).flip(0)],
    "a mask": lambda x: x[:, torch.tensor([True, False, True, True, False, True])],
    "a table": lambda x: x * torch.arange(1.0, 7.0),
    "squeeze": lambda x: x[:, None, :].squeeze() if x.size(0) > 1 else x,
}


class Moved(nn.Module):
    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.move = nn.Linear(4, 6), move
        self.b = nn.Linear(move(torch.zeros(2, 6)).size(1), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.move(self.a(x)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", MOVES)
def test_moved_neurons_are_followed_or_refused(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model, x = Moved(MOVES[name]).eval(), torch.randn(1, 4)
    graph = encode(model, x)
    plan = random_plan(graph, 0.4 + 0.1 * seed)
    try:
        small = Captured.of(model, graph, x).without(graph, plan.kept)
    except MetapruneError:
        assert follows(model, graph, plan.kept, x)
        return
    result = check(model, small, graph, plan, x)
    assert result.error is not None
    assert result.error < 1e-9
