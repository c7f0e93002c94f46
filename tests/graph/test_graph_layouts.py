"""What is remembered of an operator is what it makes: layouts, inputs changed in place, and errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metaprune_cli.graph.arguments import map_tensors_in, tensors_in
from metaprune_cli.graph.trace.layouts import Layout, run_on_meta

aten = torch.ops.aten


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "transposed operand": (aten.add.Tensor, (on_meta(4, 3).t(), on_meta(3, 4))),
    "broadcast": (aten.mul.Tensor, (on_meta(4, 1), on_meta(3))),
    "several outputs": (aten.native_layer_norm.default, (on_meta(2, 4), [4], None, None, 1e-5)),
    "list of tensors": (aten.cat.default, ([on_meta(2, 3), on_meta(2, 5)], 1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_outputs_have_the_operators_own_layouts(name: str) -> None:
    func, args = CALLS[name]
    for _ in range(2):
        found, expected = tensors_in(run_on_meta(func, args, {})), tensors_in(func(*args))
        assert [Layout.of(t) for t in found] == [Layout.of(t) for t in expected]
    assert all(t.is_meta for t in found)


def test_an_input_changed_in_place_comes_back_itself() -> None:
    for _ in range(2):
        target = on_meta(2, 3)
        assert run_on_meta(aten.relu_.default, (target,), {}) is target


def test_views_share_their_storage() -> None:
    tensor = on_meta(2, 3)
    view = run_on_meta(aten.view.default, (tensor, [6]), {})
    assert view.untyped_storage()._cdata == tensor.untyped_storage()._cdata


def test_numbers_of_other_types_are_other_calls() -> None:
    integers = torch.empty(3, dtype=torch.int64, device="meta")
    assert run_on_meta(aten.add.Tensor, (integers, 1), {}).dtype == torch.int64
    assert run_on_meta(aten.add.Tensor, (integers, 1.0), {}).dtype == torch.float32


def test_an_error_is_the_operators_own() -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"\(3\).*\(4\)|must match|broadcast"):
            run_on_meta(aten.add.Tensor, (on_meta(3), on_meta(4)), {})


def test_arguments_without_tensors_are_passed_on_as_they_are() -> None:
    sizes = torch.Size([2, 3])
    tensor = on_meta(1)
    mapped = map_tensors_in(lambda t: t.dim(), ([tensor, 5], sizes, {"mask": tensor}))
    assert mapped == ([1, 5], sizes, {"mask": 1})
    assert mapped[1] is sizes
