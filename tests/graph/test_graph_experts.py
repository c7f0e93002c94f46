"""Mixtures of experts whose matrices are one parameter, multiplied by one operator: each row by its expert's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.errors import InputError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.operators.registry import guarded
from metaprune_cli.graph.trace.layouts import run_on_meta

GROUPED = torch.ops.aten._grouped_mm.default
WIDTH, HIDDEN, EXPERTS = 16, 24, 3


class Experts(nn.Module):
    """The two best experts of every token, as transformers runs them: rows sorted by expert, one product for all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.router = nn.Linear(8, WIDTH), nn.Linear(WIDTH, EXPERTS)
        self.up = nn.Parameter(torch.randn(EXPERTS, HIDDEN, WIDTH) * 0.3)
        self.down = nn.Parameter(torch.randn(EXPERTS, WIDTH, HIDDEN) * 0.3)
        self.head = nn.Linear(WIDTH, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        weights, chosen = self.router(x).softmax(-1).topk(2)
        expert, order = chosen.reshape(-1).sort()
        ends = torch.histc(expert.float(), bins=EXPERTS, min=0, max=EXPERTS - 1).cumsum(0).to(torch.int32)
        hidden = torch.relu(torch._grouped_mm(x[order // 2], self.up.transpose(1, 2), offs=ends))
        out = torch._grouped_mm(hidden, self.down.transpose(1, 2), offs=ends) * weights.reshape(-1)[order, None]
        return self.head(x + torch.zeros_like(x).index_add(0, order // 2, out))


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Tensor, NeuronGraph]:
    torch.manual_seed(0)
    model, tokens = Experts().eval(), torch.randn(10, 8)
    return model, tokens, mp.encode(model, tokens)


def test_only_the_choice_of_experts_stays(traced: tuple[nn.Module, Tensor, NeuronGraph]) -> None:
    model, tokens, graph = traced
    locked = {family.locked for family in graph.units.families if family.locked and "put" not in family.locked}
    assert locked == {"no neuron: a constant", "topk over the neurons"}
    assert graph.macs == mp.count_macs(model, tokens)
    assert not set(graph.verbatim) & graph.trainable


def test_what_is_left_is_what_the_kernel_can_multiply(traced: tuple[nn.Module, Tensor, NeuronGraph]) -> None:
    model, tokens, _ = traced
    pruned = mp.prune(model, tokens, speedup=1.8)
    up = pruned.model.state_dict()["up"]
    assert up.numel() < model.state_dict()["up"].numel()
    assert {size % 8 for size in up.shape[1:]} == {0}
    assert pruned.report["check"]["error"] is not None
    assert pruned.report["check"]["error"] < 1e-5  # the kernel knows no double precision
    assert mp.count_macs(pruned.model, tokens) == pruned.plan.macs_after
    assert pruned.model(torch.randn(7, 8)).shape == (7, 4)


def test_rows_that_no_expert_gets_are_not_left_unset() -> None:
    rows, matrices = torch.ones(6, 8), torch.ones(2, 8, 4)
    for ends in ([2, 3], [9, -5], [-3, 900]):
        found = guarded(GROUPED)(rows, matrices, torch.tensor(ends, dtype=torch.int32))
        assert torch.equal(found, torch.full((6, 4), 8.0))
    for wrong in ((rows, matrices, None), (rows, matrices[0], torch.tensor([6], dtype=torch.int32))):
        with pytest.raises(InputError, match="a grouped product is not one of rows"):
            guarded(GROUPED)(*wrong)


def test_on_meta_it_says_what_the_kernel_would() -> None:
    def product(rows: int, columns: int, out: int, *, device: str) -> Tensor:
        ends = torch.full((2,), rows, dtype=torch.int32, device=device)
        given = (torch.ones(rows, columns, device=device), torch.ones(2, columns, out, device=device), ends)
        made: Tensor = run_on_meta(GROUPED, given, {})
        return made

    assert product(6, 8, 4, device="meta").shape == product(6, 8, 4, device="cpu").shape
    for columns, out in ((6, 8), (8, 6)):
        for device in ("meta", "cpu"):
            with pytest.raises(RuntimeError):
                product(6, columns, out, device=device)
