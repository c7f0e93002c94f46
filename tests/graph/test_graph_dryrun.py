"""What Python fixes is found by removing a little: the program follows where the class does not; else it is locked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.trials import follows


def locks(graph: NeuronGraph) -> dict[str, str | None]:
    """Entry -> why its rows cannot go."""
    return {
        entry: family.locked for family in graph.units.families for entry, side in family.parameters if side == "out"
    }


class Stored(nn.Module):
    """A width that only Python knows, between two layers whose widths are free."""

    def __init__(self, middle: str, *, on_data: bool = False) -> None:
        super().__init__()
        self.on_data = on_data
        self.before, self.fixed, self.after = nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 5)
        self.head, self.middle = nn.Linear(5, 2), middle

    def forward(self, x: Tensor) -> Tensor:
        x = self.fixed(self.before(x).relu())
        if self.on_data and x.isnan().any():
            return x
        match self.middle:
            case "view":
                x = x.view(-1, 2, 4).flatten(1)
            case "split":
                x = torch.cat(x.split([3, 5], dim=1), dim=1)
            case "check":
                assert x.size(1) == 8, "eight, please"
            case "slice":
                x = torch.cat([x[:, :7], x[:, 7:8]], dim=1)
            case "backwards":
                x = torch.cat(x.split(3, dim=-1)[::-1], dim=-1)
            case "unequal":
                x = torch.cat([x[:, 3:], x[:, :3]], dim=1)
        return self.head(self.after(x).relu())


MIDDLES = ["view", "split", "check", "slice", "unequal", "backwards"]


@pytest.mark.parametrize("middle", MIDDLES)
def test_a_stored_width_is_no_lock_where_the_program_follows(middle: str) -> None:
    model = Stored(middle)
    graph = encode(model, torch.randn(1, 3))
    assert locks(graph)["fixed.weight"] is None
    for entry, class_follows in (("fixed.weight", False), ("before.weight", True), ("after.weight", True)):
        (family,) = [f for f in graph.units.families if (entry, "out") in f.parameters]
        kept = torch.ones(graph.units.num_units, dtype=torch.bool)
        kept[family.units[0]] = False
        assert follows(model, graph, kept, torch.randn(1, 3)) is class_follows


@pytest.mark.parametrize("middle", MIDDLES)
def test_a_stored_width_locks_its_family_and_no_other_where_there_is_no_program(middle: str) -> None:
    found = locks(encode(Stored(middle, on_data=True), torch.randn(1, 3)))
    assert str(found["fixed.weight"]).startswith(("its removal breaks the program", "its removal changes what is cut"))
    assert found["before.weight"] is None
    assert found["after.weight"] is None


def test_the_error_is_the_reason() -> None:
    reason = locks(encode(Stored("check", on_data=True), torch.randn(1, 3)))["fixed.weight"]
    assert str(reason).startswith("its removal breaks the program: AssertionError: eight, please")


def test_nothing_is_locked_where_the_program_follows() -> None:
    found = locks(encode(Stored("none"), torch.randn(1, 3)))
    assert found.pop("head.weight") == "it is an output of the model"
    assert set(found.values()) == {None}


def test_an_output_that_changes_its_shape_is_a_matter_for_the_program() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            hidden = self.inner(x)
            return self.head(hidden), torch.zeros(hidden.size(1))

    model = Wide()
    graph = encode(model, torch.randn(1, 3))
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    (family,) = [f for f in graph.units.families if ("inner.weight", "out") in f.parameters]
    kept[family.units[0]] = False
    assert not follows(model, graph, kept, torch.randn(1, 3))
    assert Captured.of(model, graph, torch.randn(1, 3)).without(graph, kept)(torch.randn(1, 3))[1].shape == (6,)


def test_culprits_are_found_among_many() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(40))

        def forward(self, x: Tensor) -> Tensor:
            for number, layer in enumerate(self.layers):
                x = layer(x).relu()
                if x.isnan().any():  # there is no program: it depends on data
                    return x
                if number in (5, 23):
                    x = x.view(-1, 4)
            return x

    found = locks(encode(Deep(), torch.randn(1, 4)))
    locked = {entry for entry, reason in found.items() if reason is not None}
    assert locked == {"layers.5.weight", "layers.23.weight", "layers.39.weight"}


class Skipped(nn.Module):
    """A layer that training leaves out by a throw of Python's, around heads whose number only Python knows."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.heads = 12, 3
        self.embed, self.qkv, self.out, self.head = (
            nn.Linear(4, 12),
            nn.Linear(12, 36),
            nn.Linear(12, 12),
            nn.Linear(12, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        if not self.training or float(torch.rand(())) < 0.9:
            assert x.size(-1) == self.width, "another width"
            q, k, v = (z.view(*x.shape[:2], self.heads, 4).transpose(1, 2) for z in self.qkv(x).chunk(3, -1))
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(*x.shape[:2], -1))
        return self.head(x)


def test_where_there_is_no_program_attributes_that_hold_a_width_are_set() -> None:
    model, x = Skipped().eval(), torch.randn(1, 5, 4)
    graph = encode(model, x)
    free = {(family.name, family.kind) for family in graph.units.families if family.locked is None}
    assert free == {("embed", "channels"), ("qkv", "heads")}
    pruned = mp.prune(model, x, speedup=2.0)
    assert (pruned.report["route"], type(pruned.model)) == ("class", Skipped)
    assert pruned.plan.speedup >= 2.0
    assert pruned.model.width < 12
    assert pruned.report["check"]["error"] < 1e-9
