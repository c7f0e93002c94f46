"""Pictures before and after: what is given, what is wanted, and what every kind of model makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metaprune_cli.console.figures import times
from metaprune_cli.metrics.calling import evaluating
from metaprune_cli.reports.conditions import Conditions
from metaprune_cli.reports.png import png_of
from metaprune_cli.reports.rows import Row
from metaprune_cli.tasks import Task
from metaprune_cli.tasks.base import Exhibit
from metaprune_cli.tasks.measuring import value_of
from metaprune_cli.workflows.arms import place

SIDE = 160
"""In pixels, of the detail that is shown."""
SPEEDUPS = 4
"""That are shown at most."""


@dataclass(frozen=True)
class Shown:
    """A picture with what it is and how good, in words; ``png`` is its file."""

    title: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class Wall:
    """All pictures of one sample; of models that were pruned, a row for each speed-up."""

    title: str
    rows: tuple[tuple[Shown, ...], ...]


@dataclass(frozen=True)
class Invited:
    """A model whose pictures are shown: what it is, and how it is run. Those of one ``row`` hang side by side."""

    title: str
    row: float
    model: nn.Module
    conditions: Conditions


def invited(
    rows: Sequence[Row], paths: Sequence[Path], models: Mapping[Path, nn.Module], by_path: Mapping[Path, Conditions]
) -> list[Invited]:
    """Of the first origin, the whole model, and of every arm and speed-up the one that was trained the longest."""
    origin = rows[0].origin
    found: dict[tuple[float, str], tuple[int, Invited]] = {}  # with the epochs of finetuning
    for row, path in zip(rows, paths, strict=True):
        if row.origin != origin:
            continue
        asked = row.requested or 1.0
        title = "original model" if row.requested is None else f"{row.arm} {times(asked)}"
        if row.requested is None and row.arm != "plain":
            title = f"{row.arm}, unpruned"
        steps = (row.epochs, Invited(title, asked, models[path], by_path[path]))
        if (asked, row.arm) not in found or found[asked, row.arm][0] <= row.epochs:
            found[asked, row.arm] = steps
    in_order = sorted(found, key=lambda key: (key[0], place(key[1])))
    asked_for = sorted({asked for asked, _ in in_order})[: 1 + SPEEDUPS]
    return [found[key][1] for key in in_order if key[0] in asked_for]


def gallery(guests: Sequence[Invited]) -> list[Wall]:
    """A wall for every sample that the task shows; none where it shows no pictures."""
    if not guests:
        return []
    first = guests[0].conditions
    return [_wall(number, exhibit, guests) for number, exhibit in enumerate(first.exhibits)]


def _wall(number: int, exhibit: Exhibit, guests: Sequence[Invited]) -> Wall:
    task = guests[0].conditions.task
    wanted = (exhibit.batch.targets[0] * 255).round().clamp(0, 255).to(torch.uint8)
    detail = _detail(wanted)
    given = task.given(exhibit)
    before = (
        Shown("input", _caption(task, given, exhibit), png_of(detail(task.picture(given)))),
        Shown("target", "the original image", png_of(detail(wanted))),
    )
    hung: dict[float, list[Shown]] = {1.0: list(before)}
    for guest in guests:
        hung.setdefault(guest.row, []).append(_shown(guest, guest.conditions.exhibits[number], detail))
    return Wall(exhibit.name, tuple(tuple(each) for _, each in sorted(hung.items())))


def _shown(guest: Invited, exhibit: Exhibit, detail: Callable[[Tensor], Tensor]) -> Shown:
    task, device = guest.conditions.task, guest.conditions.device
    model = guest.model.to(device)
    with evaluating(model):
        output = task.run(model, exhibit.batch.inputs.to(device)).cpu()
    model.cpu()
    return Shown(guest.title, _caption(task, output, exhibit), png_of(detail(task.picture(output))))


def _caption(task: Task, output: Tensor, exhibit: Exhibit) -> str:
    """The headline for the whole image: ``PSNR 28.31 dB``."""
    meter = task.quick_meter()
    meter.update(output, exhibit.batch.targets)
    metric = task.metrics[0]
    return f"{metric.label} {metric.written(value_of(metric, meter, task))}"


def _detail(image: Tensor) -> Callable[[Tensor], Tensor]:
    """Cuts out the square of an image (c, h, w) in which there is most to see."""
    side = min(SIDE, *image.shape[1:])
    step = max(1, side // 4)
    gray = image.double().mean(0, keepdim=True)
    changes = F.pad(gray.diff(dim=1).abs(), (0, 0, 0, 1)) + F.pad(gray.diff(dim=2).abs(), (0, 1))
    busy = F.avg_pool2d(changes[None], side, step)[0, 0]
    row, column = divmod(int(busy.argmax()), busy.shape[1])
    top, left = row * step, column * step
    return lambda picture: picture[:, top : top + side, left : left + side]
