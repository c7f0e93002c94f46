"""Weights that are computed from other parameters."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp


class Product(nn.Module):
    """A matrix that is a product of two parameters."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.a, self.b = nn.Linear(6, 16), nn.Linear(12, 3)
        self.A, self.B = nn.Parameter(torch.randn(16, 4)), nn.Parameter(torch.randn(4, 12))
        self.W = nn.Parameter(torch.randn(16, 12)) if how == "beside" else None

    def forward(self, x: Tensor) -> Tensor:
        h, matrix = self.a(x).relu(), self.A @ self.B
        if self.W is not None:
            matrix = self.W + matrix
        mixed = F.linear(h, matrix.t()) if self.how == "linear" else h @ matrix
        out: Tensor = self.b(mixed.relu())
        return out


@pytest.mark.parametrize("how", ["matmul", "linear", "beside"])
def test_a_product_of_parameters_is_pruned_and_counted(how: str) -> None:
    torch.manual_seed(0)
    model, x = Product(how).eval(), torch.randn(1, 5, 6)
    assert mp.encode(model, x).structure.macs == mp.count_macs(model, x)
    pruned = mp.prune(model, x, speedup=1.7)
    assert mp.count_macs(pruned.model, x) == pruned.plan.macs_after
    assert pruned.checked.error is not None
    assert pruned.model.B.shape[1] < 12
