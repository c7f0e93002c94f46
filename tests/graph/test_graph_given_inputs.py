"""Control flow that asks the inputs is traced on meta, and attributes that hold widths follow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.errors import TargetError
from metaprune_cli.graph.trace.passes import Skeleton


class Attention(nn.Module):
    """Heads by view, their number and size kept as attributes; a mask of ones is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 4, 8
        self.e, self.q, self.v = nn.Embedding(50, 24), nn.Linear(24, 32), nn.Linear(24, 32)
        self.o = nn.Linear(32, 5)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.e(ids)
        q, v = (part(x).view(*ids.shape, self.heads, self.size).transpose(1, 2) for part in (self.q, self.v))
        chosen = None if mask.all() else mask[:, None, None, :].bool()
        y = F.scaled_dot_product_attention(q, q, v, attn_mask=chosen, scale=0.3)
        out: Tensor = self.o(y.transpose(1, 2).reshape(*ids.shape, -1))
        return out


class Filtered(nn.Module):
    """Rows are chosen by what the inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.size = 4, 8
        self.a, self.o = nn.Linear(8, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x[x[:, 0] > -1]
        out: Tensor = self.o(self.a(x).view(-1, self.heads, self.size).relu().flatten(1))
        return out


def _tokens(length: int = 7, batch: int = 1) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 50, (batch, length)), torch.ones(batch, length, dtype=torch.long)


def test_a_mask_that_is_asked_leaves_attention_prunable() -> None:
    torch.manual_seed(0)
    model, inputs = Attention().eval(), _tokens()
    graph = mp.encode(model, inputs)
    assert {family.locked for family in graph.units.families if family.name in ("e", "q", "v")} == {None}
    pruned = mp.prune(model, inputs, speedup=2.5)
    assert (pruned.route, pruned.checked.error is not None) == ("class", True)
    assert mp.count_macs(model, inputs) >= 2.5 * mp.count_macs(pruned.model, inputs)
    ids, mask = _tokens(11, 3)
    mask[1, :4] = 0
    assert pruned.model(ids, mask).isfinite().all()


def test_no_program_is_made_where_the_number_of_rows_decides() -> None:
    class Few(Filtered):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * 2 if len(x[x[:, 0] > -1]) == 1 else x)

    with pytest.raises(TargetError, match="depends on the values of its inputs"):
        mp.prune(Few().eval(), torch.randn(6, 8).abs(), speedup=1.5, route="program")


@pytest.mark.parametrize("rows", [6, 9])
def test_rows_that_inputs_choose_leave_heads_prunable(rows: int) -> None:
    torch.manual_seed(0)
    model, x = Filtered().eval(), torch.randn(6, 8).clamp_min(-2)
    x[1, 0] = -2
    pruned = mp.prune(model, x, speedup=2.0)
    assert pruned.route == "class"
    assert pruned.checked.error is not None
    assert mp.count_macs(model, x) >= 2 * mp.count_macs(pruned.model, x)
    assert pruned.model(torch.randn(rows, 8).abs()).shape == (rows, 5)


def test_what_activations_decide_is_traced_on_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """There too attributes that hold widths are found."""

    class Early(Attention):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            out = super().forward(ids, mask)
            return out if bool(out.isfinite().all()) else torch.zeros_like(out)

    made: list[bool] = []
    of = Skeleton.of
    monkeypatch.setattr(Skeleton, "of", lambda model, *, real=False: (made.append(real), of(model, real=real))[1])
    torch.manual_seed(0)
    model, inputs = Early().eval(), _tokens()
    graph = mp.encode(model, inputs)
    assert made == [False, False, True]
    assert {family.locked for family in graph.units.families if family.name in ("e", "q", "v")} == {None}
    pruned = mp.prune(model, inputs, speedup=2.0)
    assert (pruned.route, pruned.checked.error is not None) == ("class", True)
    assert mp.count_macs(model, inputs) >= 2.0 * mp.count_macs(pruned.model, inputs)
