"""Rows that data chooses: how many there are becomes a size of the program, whatever the number."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.errors import CorruptFileError
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.trace.choices import ALL, NONE, ONE, Choices, without
from metaprune_cli.models.programs import program_from_document, program_to_document, tensors_of

aten = torch.ops.aten


class Rows(nn.Module):
    """Heads whose number and width are written out, so that no class follows, over rows that data chooses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.l, self.o, self.gate = nn.Linear(8, 32), nn.Linear(32, 5), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3))

    def heads(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(self.l(x).view(-1, 4, 8).relu().flatten(1))
        return out


Forward = Callable[[Rows, Tensor], Tensor]


def by_mask(m: Rows, x: Tensor) -> Tensor:
    return m.heads(x[x[:, 0] > 0])


def by_places(m: Rows, x: Tensor) -> Tensor:
    return m.heads(x[torch.where(x[:, 0] > 0)[0]])


def by_elements(m: Rows, x: Tensor) -> Tensor:
    return m.heads(x.masked_select((x[:, :1] > 0).expand_as(x)).view(-1, 8))


def back_to_where_they_were(m: Rows, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape[0], 5)
    out[x[:, 0] > 0] = m.heads(x[x[:, 0] > 0])  # the mask is computed twice
    out[~(x[:, 0] > 0)] = m.heads(-x[~(x[:, 0] > 0)])
    return out


def padded_to_all(m: Rows, x: Tensor) -> Tensor:
    y = m.heads(x[x[:, 0] > 0])
    return F.pad(y, (0, 0, 0, x.shape[0] - y.shape[0]))


def attention_among_them(m: Rows, x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    q = m.l(y).view(y.shape[0], 4, 8).transpose(0, 1)
    return m.o(F.scaled_dot_product_attention(q, q, q).transpose(0, 1).reshape(y.shape[0], 32))  # type: ignore[no-any-return]


def as_many_as_a_mask_has(m: Rows, x: Tensor) -> Tensor:
    return m.heads(x[x[:, 1].topk(int((x[:, 0] > 0).sum())).indices])


def what_differs(m: Rows, x: Tensor) -> Tensor:
    groups, group_of = torch.unique((x[:, 0] * 2).long().clamp(-3, 3), return_inverse=True)
    return m.heads(x.new_zeros(groups.numel(), 8).index_add_(0, group_of, x))


def boxes_that_are_left(m: Rows, x: Tensor) -> Tensor:
    boxes = torch.cat([x[:, :2], x[:, :2] + x[:, 2:4].abs()], 1)
    return m.heads(x[torchvision.ops.nms(boxes, x[:, 4], 0.3)])


def edges_of_a_matrix(m: Rows, x: Tensor) -> Tensor:
    source, target = (x @ x.t() > 1).nonzero().unbind(1)
    h = m.l(x).view(-1, 4, 8)
    return m.o(torch.zeros_like(h).index_add_(0, target, h[source]).relu().flatten(1))  # type: ignore[no-any-return]


def rows_of_neurons(m: Rows, x: Tensor) -> Tensor:
    h = m.l(x).view(-1, 4, 8).relu()
    return m.o(h[h.mean((1, 2)) > 0.3].flatten(1))  # type: ignore[no-any-return]


def rows_among_rows(m: Rows, x: Tensor) -> Tensor:
    some = x[x[:, 0] > 0]
    return m.heads(torch.cat([some, some[some[:, 1] > 0]]))


def experts_that_are_skipped(m: Rows, x: Tensor) -> Tensor:
    expert, out = m.gate(x).argmax(-1), torch.zeros_like(x)
    for number, net in enumerate(m.experts):
        chosen = torch.where(expert == number)[0]
        if chosen.numel() == 0:
            continue
        out[chosen] += net(x[chosen])
    return m.heads(out)


def parts_that_are_skipped(m: Rows, x: Tensor) -> Tensor:
    parts = [m.heads(some) * k for k in range(3) if len(some := x[(x[:, 0] * 2).long() == k])]
    return torch.cat(parts) if parts else x.new_zeros(0, 5)


def nothing_returned_at_once(m: Rows, x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    return m.heads(y) if len(y) else x.new_zeros(0, 5)


FREE: list[Forward] = [
    *(by_mask, by_places, by_elements, back_to_where_they_were, padded_to_all, attention_among_them),
    *(as_many_as_a_mask_has, what_differs, boxes_that_are_left, edges_of_a_matrix, rows_of_neurons, rows_among_rows),
    *(experts_that_are_skipped, parts_that_are_skipped, nothing_returned_at_once),
]


def made(forward: Forward) -> nn.Module:
    return type(forward.__name__, (Rows,), {"forward": forward})().eval()  # type: ignore[no-any-return]


def rows() -> Tensor:
    return torch.randn(12, 8, generator=torch.Generator().manual_seed(1))


def whole(model: nn.Module, x: Tensor) -> Program:
    graph = mp.encode(model, x)
    return Captured.of(model, graph, x).without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))


@pytest.mark.parametrize("forward", FREE, ids=lambda forward: forward.__name__)
def test_a_program_takes_whatever_data_chooses(forward: Forward) -> None:
    model = made(forward)
    program = whole(model, rows())
    for at, size in enumerate((12, 7, 2, 1, 12, 40)):
        x = torch.randn(size, 8) + (0, 3, -3)[at % 3]  # some, all, none
        torch.testing.assert_close(program(x), model(x))


@pytest.mark.parametrize("forward", FREE, ids=lambda forward: forward.__name__)
def test_heads_over_chosen_rows_are_pruned(forward: Forward) -> None:
    pruned = mp.prune(made(forward), rows(), speedup=1.6)
    assert pruned.report["route"] == "program"
    assert pruned.report["speedup"] >= 1.6
    assert pruned.checked.error is not None
    pruned.model.train()(rows()).sum().backward()


def other_result_of_none(m: Rows, x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    return m.heads(y) if len(y) else x.new_zeros(1, 5)


def mean_of_none(m: Rows, x: Tensor) -> Tensor:
    y = m.heads(x[x[:, 0] > 0])
    return y.mean(0) if len(y) else x.new_zeros(5)


def means_that_are_skipped(m: Rows, x: Tensor) -> Tensor:
    return torch.stack([m.heads(some).mean(0) for k in range(3) if len(some := x[(x[:, 0] * 2).long() == k])])


def one_is_special(m: Rows, x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    return m.heads(y * 2 if len(y) == 1 else y)


def all_are_special(m: Rows, x: Tensor) -> Tensor:
    y = x[x[:, 0] > 0]
    return m.heads(x * 2 if len(y) == len(x) else y)


def row_by_row(m: Rows, x: Tensor) -> Tensor:
    return torch.cat([m.heads(row[None]) for row in x[x[:, 0] > 0]] or [x.new_zeros(0, 5)])


@pytest.mark.parametrize(
    "forward",
    [other_result_of_none, mean_of_none, means_that_are_skipped, one_is_special, all_are_special, row_by_row],
    ids=lambda forward: forward.__name__,
)
def test_where_the_number_decides_what_runs_there_is_no_program(forward: Forward) -> None:
    graph = mp.encode(made(forward), rows())
    locked = {family.name: family.locked for family in graph.units.families}
    assert "the flow depends on data, so no program can take its place" in str(locked["l"])


def test_experts_are_counted_by_the_rows_they_get() -> None:
    model, x = made(experts_that_are_skipped), rows()
    model.get_submodule("gate").weight.data = torch.eye(3, 8)  # type: ignore[union-attr]
    assert mp.encode(model, x).summary()["macs"] == mp.count_macs(model, x)


def test_an_expert_that_gets_no_row_is_no_less_prunable() -> None:
    model, x = made(experts_that_are_skipped), rows()
    model.get_submodule("gate").bias.data = torch.tensor([9.0, 0, 0])  # type: ignore[union-attr]
    graph = mp.encode(model, x)
    assert graph.summary()["macs"] == mp.count_macs(model, x)
    families = {family.name: family.locked for family in graph.units.families}
    assert [families[f"experts.{k}.0"] for k in range(3)] == [None] * 3


def noted(choices: Choices, func: Any, *args: Any) -> Any:
    out = func(*args)
    choices.note(func, args, {}, out)
    return out


def test_masks_that_are_computed_alike_choose_as_many() -> None:
    choices, x = Choices(0), torch.empty(50, device="meta")
    first, second = (noted(choices, aten.gt.Scalar, x, 0) for _ in range(2))
    other, opposite = noted(choices, aten.gt.Scalar, x, 1), noted(choices, aten.logical_not.default, first)
    assert choices.of(first) == choices.of(second) != choices.of(other)
    assert choices.of(opposite).count == 50 - choices.of(first).count
    assert choices.of(noted(choices, aten.unsqueeze.default, first, 1)) == choices.of(first)
    noted(choices, aten.fill_.Scalar, first, True)
    assert choices.of(first) != choices.of(second)


def test_numbers_are_made_up_for_every_recording() -> None:
    def counts(numbers: Any) -> list[int]:
        choices = Choices(numbers)
        return [choices.of(torch.empty(size, dtype=torch.bool, device="meta")).count for size in (9, 0, 4)]

    assert [counts(numbers) for numbers in (NONE, ONE, ALL)] == [[0, 0, 0], [1, 0, 1], [9, 0, 4]]
    assert counts(without(2)) == [*counts(0)[:2], 0]
    assert counts((3, 5, 0)) == [3, 0, 1]
    assert len({tuple(counts(recording)) for recording in range(6)}) > 3


@pytest.fixture(scope="module")
def chosen() -> Program:
    return whole(made(back_to_where_they_were), rows())


def test_a_file_holds_what_data_chooses(chosen: Program) -> None:
    again = program_from_document(json.loads(json.dumps(program_to_document(chosen))), tensors_of(chosen))
    for shift in (0, 3, -3):
        assert torch.equal(again(rows() + shift), chosen(rows() + shift))


def choosing(document: dict[str, Any]) -> dict[str, Any]:
    return next(s for s in document["scripts"]["eval"]["steps"] if s["operator"] == "aten.index.Tensor")


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another number of results": lambda step: step.update(outputs=[*step["outputs"], 10**6]),
    "no tensor that chooses": lambda step: step.update(operator="aten.nonzero.default", args=[3]),
    "what chooses is too long": lambda step: step.update(operator="aten.masked_select.default"),
    "an index that nothing makes": lambda step: step["args"].pop(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_choices_are_refused(chosen: Program, name: str) -> None:
    document = json.loads(json.dumps(program_to_document(chosen)))
    DAMAGES[name](choosing(document))
    with pytest.raises(CorruptFileError):
        program_from_document(document, tensors_of(chosen))
