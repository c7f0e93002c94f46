"""A model's layers as a table and a picture: how wide each is, before and after pruning, and its share of the MACs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from metaprune_cli.console.figures import count, share
from metaprune_cli.console.text import line, plotted
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.structure import EdgeBlock
from metaprune_cli.reports.png import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 150
"""Rows of a picture; the layers with the fewest MACs are put together in the last one."""
WIDTH, ROW_INCHES, NAME = 9.0, 0.24, 48
ROOM = 1.25  # times the longest bar: for the figures behind it
WHOLE, LEFT, MACS = "#d5dade", "#0072B2", "#009E73"
PRODUCTS = "products of activations"
"""Attention's: they belong to no layer with parameters."""


@dataclass(frozen=True)
class LayerFigures:
    """One layer with parameters: output channels, those before the last pruning where its plan is known, and MACs."""

    name: str
    width: int
    before: int | None
    macs: int
    macs_share: float


def layers_of(graph: NeuronGraph, plan: Mapping[str, Any] | None) -> tuple[LayerFigures, ...]:
    """Every layer of a graph, in the order in which the graph has them.

    Args:
        graph: of the model as it is.
        plan: of the last pruning, as model artifacts carry it; None: it was not pruned.
    """
    by_layer: dict[str, list[EdgeBlock]] = defaultdict(list)
    for block in graph.blocks:
        by_layer[block.param.rpartition(".")[0] or block.param].append(block)
    was, whole = _growth(graph, plan), max(graph.macs, 1)
    rows = []
    for name, blocks in by_layer.items():
        neurons = torch.cat([block.destinations.flatten() for block in blocks]).unique()
        macs = sum(block.macs for block in blocks)
        rows.append(LayerFigures(name, len(neurons), _before(graph, neurons, was), macs, macs / whole))
    rest = graph.macs - sum(row.macs for row in rows)
    return (*rows, LayerFigures(PRODUCTS, 0, None, rest, rest / whole)) if rest else tuple(rows)


def draw(layers: Sequence[LayerFigures], title: str, path: Path) -> None:
    """A PNG: layers downwards; left how many channels each has, and had; right its share of the multiply-adds."""
    shown = _most(layers)
    with picture(path, WIDTH, 1.3 + ROW_INCHES * len(shown)) as figure:
        widths, macs = figure.subplots(1, 2, sharey=True)
        places = range(len(shown))
        widths.barh(places, [row.before or row.width for row in shown], color=WHOLE, height=0.75)
        widths.barh(places, [row.width for row in shown], color=LEFT, height=0.75)
        macs.barh(places, [100 * row.macs_share for row in shown], color=MACS, height=0.75)
        _dress(widths, "output channels", [_change(row) for row in shown], [row.before or row.width for row in shown])
        said = [f"{share(row.macs_share)}, {count(row.macs)}" for row in shown]
        _dress(macs, "share of the multiply-adds, %", said, [100 * row.macs_share for row in shown])
        widths.set_yticks(places, [plotted(line(row.name, NAME)) for row in shown], fontsize=8)
        widths.invert_yaxis()  # the first layer at the top; the axis is shared
        figure.suptitle(plotted(title), fontsize=10)


def _growth(graph: NeuronGraph, plan: Mapping[str, Any] | None) -> torch.Tensor | None:
    """How many times more units every family had before the last pruning, float64 (families,); None: not known.

    Of a layer with a single head left, heads are no family any more; its channels then stand for them.
    """
    families, planned = graph.units.families, (plan or {}).get("families") or ()
    sizes = {(family.name, family.kind): len(family.units) for family in families}
    growth: dict[tuple[str, str], float] = dict.fromkeys(sizes, 1.0)
    for row in planned:
        name, kind = row["name"], row.get("kind", "channels")
        if sizes.get((name, kind), row["after"]) != row["after"]:
            return None
        place = (name, kind) if (name, kind) in sizes else (name, "channels")
        growth[place] = growth.get(place, 1.0) * row["before"] / max(row["after"], 1)
    if not planned:
        return None
    return torch.tensor([growth[family.name, family.kind] for family in families], dtype=torch.float64)


def _before(graph: NeuronGraph, neurons: torch.Tensor, was: torch.Tensor | None) -> int | None:
    """How many neurons there were where these are left: a layer has the same number of each of a family's units."""
    if was is None:
        return None
    units = graph.units
    column = units.family_of[units.unit_of[neurons]]
    row = torch.where(units.row_of[neurons] >= 0, units.family_of[units.row_of[neurons].clamp(min=0)], column)
    return round(float((was[column] * torch.where(row == column, 1.0, was[row])).sum()))


def _most(layers: Sequence[LayerFigures]) -> list[LayerFigures]:
    if len(layers) <= MOST:
        return list(layers)
    shown = {row.name for row in sorted(layers, key=lambda row: row.macs)[-MOST + 1 :]}
    rest = [row for row in layers if row.name not in shown]
    others = LayerFigures(
        f"{len(rest)} more layers", 0, None, sum(row.macs for row in rest), sum(row.macs_share for row in rest)
    )
    return [*(row for row in layers if row.name in shown), others]


def _change(row: LayerFigures) -> str:
    if not row.width:
        return ""
    return f"{row.width}" if row.before in (None, row.width) else f"{row.before} → {row.width}"


def _dress(axes: Axes, title: str, said: Sequence[str], ends: Sequence[float]) -> None:
    for place, (text, end) in enumerate(zip(said, ends, strict=True)):
        axes.annotate(text, (end, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=7)
    axes.set_xlim(0, ROOM * max(*ends, 1e-9))
    axes.set_xlabel(title, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
