"""What one model's families can lose, and its files of fixed names: a table, a picture, and rules for ``prune``."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaprune_cli.console.figures import share
from metaprune_cli.console.sheet import csv_text
from metaprune_cli.console.text import line, plotted, quoted
from metaprune_cli.graph.units import titled
from metaprune_cli.reports.png import picture
from metaprune_cli.tasks import Metric
from metaprune_cli.workflows.paths import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARKEST = 20  # times what is worth a picture: what costs more is no darker
ROW_INCHES, COLUMN_INCHES, LEFT_INCHES = 0.26, 0.85, 2.6
LETTERS, LETTER_INCHES = 60, 0.07  # of a name: what there is room for, and what one more takes


@dataclass(frozen=True)
class FamilySensitivity:
    """One family: how much worse the headline is by ratio, and the ratio at which it is ``max_drop``.

    ``macs_share`` is the part of the model's MACs that would go with all of the family's units that may.
    """

    family: str
    units: int
    macs_share: float
    drops: Mapping[float, float]
    bearable: float
    kind: str = "channels"

    @property
    def title(self) -> str:
        """Its name, apart from that of another family of the same layer."""
        return titled(self.family, self.kind)


@dataclass(frozen=True)
class Sensitivity:
    """One model: the headline of the whole on the validation images that were used, and every family."""

    input: str
    criterion: str
    images: int
    metric: Metric
    headline: float
    families: tuple[FamilySensitivity, ...]
    locked: int
    output: str | None

    def to_document(self) -> dict[str, Any]:
        """Plain values, the headline by its metric's name."""
        return {
            "input": self.input,
            "criterion": self.criterion,
            "images": self.images,
            self.metric.key: self.headline,
            "families": [asdict(family) for family in self.families],
            "locked": self.locked,
            "output": self.output,
        }


def write(found: Sensitivity, max_drop: float, folder: Path) -> None:
    """Write sensitivity.csv, sensitivity.png and rules.yaml."""
    folder.mkdir(parents=True, exist_ok=True)
    ratios = list(found.families[0].drops)
    rows = [
        {"family": row.family, "units": row.units, "macs_share": row.macs_share, "bearable": row.bearable}
        | {f"drop_at_{ratio:g}": row.drops[ratio] for ratio in ratios}
        for row in found.families
    ]
    texts = {"sensitivity.csv": csv_text(rows, list(rows[0])), "rules.yaml": rules(found, max_drop)}
    for name, text in texts.items():
        replace_file(folder / name, partial(Path.write_text, data=text, encoding="utf-8"))
    replace_file(folder / "sensitivity.png", partial(draw, [found]))


def rules(found: Sensitivity, max_drop: float) -> str:
    """The section ``prune`` of a params.yaml in which no family, by itself, loses more than is bearable."""
    lines = [
        f"    - {{match: {quoted(glob.escape(row.family))}, max_ratio: {row.bearable:.3f}}}" for row in found.families
    ]
    metric = found.metric
    lost = f"{max_drop:g} {metric.difference_unit}".rstrip()
    said = (
        f"# {line(found.input)}: for each family, the max_ratio that costs {lost} of {metric.written(found.headline)}"
    )
    return "\n".join([said, "prune:", "  rules:", *lines, ""])


def draw(models: Sequence[Sensitivity], path: Path) -> None:
    """A PNG, a panel for each model: families downwards in the order of the network, ratios across, losses in it."""
    names = [[plotted(f"{row.title}, {row.units}") for row in found.families] for found in models]
    left = LEFT_INCHES + LETTER_INCHES * max(0, *(len(name) - LETTERS for some in names for name in some))
    heights = [1.4 + ROW_INCHES * len(some) for some in names]
    width = left + COLUMN_INCHES * max(len(found.families[0].drops) for found in models)
    with picture(path, width, sum(heights)) as figure:
        panels = figure.subplots(len(models), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, found, some in zip(panels, models, names, strict=True):
            _draw_model(axes, found, some)
            if len(models) > 1:
                axes.set_title(plotted(f"{Path(found.input).stem}: {axes.get_title()}"), fontsize=10)


def _draw_model(axes: Axes, found: Sensitivity, names: Sequence[str]) -> None:
    ratios = list(found.families[0].drops)
    lost = [[row.drops[ratio] for ratio in ratios] for row in found.families]
    metric, digits = found.metric, max(found.metric.digits - 1, 0)
    unit = metric.difference_unit.capitalize() if metric.unit == "%" else metric.title
    _draw_squares(axes, lost, DARKEST * metric.resolution, digits)
    axes.set_xticks(range(len(ratios)), [share(ratio) for ratio in ratios])
    axes.set_yticks(range(len(lost)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.set_xlabel("share of its channels or heads removed, lowest scores first")
    title = f"{unit} lost of {found.headline:.{digits}f} {metric.unit}".rstrip()
    axes.set_title(plotted(title), fontsize=10)


def _draw_squares(axes: Axes, lost: Sequence[Sequence[float]], darkest: float, digits: int) -> None:
    axes.imshow(lost, cmap="YlOrRd", vmin=0, vmax=darkest, aspect="auto")
    for down, row in enumerate(lost):
        for right, drop in enumerate(row):
            colour = "white" if drop > 0.6 * darkest else "black"
            axes.text(right, down, f"{drop:.{digits}f}", ha="center", va="center", fontsize=8, color=colour)
