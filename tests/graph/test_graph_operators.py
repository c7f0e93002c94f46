"""One row an operator: the table knows of each what the four tables before it knew, and of none twice."""

from __future__ import annotations

from inspect import getclosurevars, unwrap
from pathlib import Path
from typing import Any

import torch
import torchvision  # noqa: F401 - registers its operators

from metaprune_cli.graph.operators.operator import Operator
from metaprune_cli.graph.operators.registry import NOTHING, guarded, has_rule, operator_of
from metaprune_cli.graph.operators.table import GROUPS, ROWS
from metaprune_cli.graph.program import guards
from metaprune_cli.graph.program.allowed import is_allowed

aten = torch.ops.aten
GUARDS = {
    id(guard): {"empty": "filled", "empty_like": "filled", "new_empty": "filled"}.get(name, name)
    for name, guard in vars(guards).items()
}


def snapshot() -> dict[str, list[str]]:
    """By operator: its rules for labels, zeros, rewriting, survivors, its guard, and whether programs may call it."""
    known = {}
    for line in Path(__file__).with_name("operators.txt").read_text(encoding="utf-8").splitlines()[1:]:
        words, _, names = line.partition(": ")
        known |= dict.fromkeys(names.split(), words.split())
    return known


def words_of(row: Operator) -> list[str]:
    def name(rule: Any) -> str:
        if rule is None:
            return "-"
        dims = f"({getclosurevars(unwrap(rule)).nonlocals['spatial']})" if rule.__name__ == "pools_positions" else ""
        return f"pools{dims}" if dims else rule.__name__.lstrip("_")

    rules = (row.labels, row.keeps_zero, row.rewrite, row.on_survivors)
    guard = "-" if row.guard is None else GUARDS[id(row.guard)]
    return [*map(name, rules), guard, {None: "-", True: "yes", False: "no"}[row.in_programs]]


def test_operators_do_what_they_did() -> None:
    rows = {name: ROWS.get(name if "::" in name else f"aten::{name}", NOTHING) for name in snapshot()}
    assert {name: words_of(row) for name, row in rows.items()} == snapshot()


def test_an_operator_has_one_row() -> None:
    names = [name for group in GROUPS for names, _ in group for name in names.split()]
    assert sorted(names) == sorted(set(names))


def test_what_a_row_leaves_out_follows_from_the_operators_nature() -> None:
    assert words_of(operator_of(aten.transpose.int))[:3] == ["moves", "all_operands", "-"]
    assert words_of(operator_of(aten.sigmoid.default))[:3] == ["pointwise", "-", "aligned"]
    assert words_of(operator_of(aten.cumsum_.default))[:2] == ["along", "all_operands"]
    assert words_of(operator_of(aten.linalg_svd.default)) == ["unknown", "-", "-", "-", "-", "-"]
    assert operator_of(torch.ops.torchvision.nms.default).labels is operator_of(aten.linalg_svd.default).labels


def test_what_has_a_rule_may_be_in_programs_unless_its_row_says_no() -> None:
    assert has_rule(aten.relu.default)
    assert not has_rule(aten.outer.default)
    assert [is_allowed(f) for f in (aten.relu.default, aten.outer.default)] == [True, True]
    assert [is_allowed(f) for f in (aten.as_strided.default, aten.linalg_svd.default)] == [False, False]


def test_a_guard_leaves_alone_what_it_is_not_for() -> None:
    assert guarded(aten.div.Tensor) is aten.div.Tensor
    assert guarded(aten.div.Tensor_mode) is not aten.div.Tensor_mode
