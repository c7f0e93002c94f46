"""Widths that a class keeps as numbers: what a file has to say of them."""

from __future__ import annotations

from torch import nn

from metaprune_cli.graph.widths import set_widths_, widths_lost


class Heads(nn.Module):
    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width, self.causal = heads, width, True


def test_one_head_that_is_left_is_a_width_lost() -> None:
    small, built = nn.Sequential(Heads(1, 12), Heads(4, 12)), nn.Sequential(Heads(4, 12), Heads(4, 12))
    lost = widths_lost(small, built)
    assert lost == {"0": {"heads": 1}}
    set_widths_(built, lost)
    assert built[0].heads == 1
