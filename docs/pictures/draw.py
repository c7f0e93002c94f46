"""Draw the pictures beside this file: ``python docs/pictures/draw.py``. A test compares them with what is committed.

The curve is drawn from the figures in docs/results/published; the others are sketches.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from svg import GREY, INK, ORANGE, PALE, TEAL, VIOLET, arrow, box, cells, curve, picture, rule, words

HERE = Path(__file__).parent
CELLS = HERE.parent / "results" / "published" / "results.jsonl"
STAGES = {
    "20": (TEAL, "repaired, then 20 epochs"),
    "ls": (VIOLET, "repaired, not trained"),
    "bn": (ORANGE, "neither: BatchNorm re-estimated"),
}
"""A stage of the bench → its colour, and what it is called in the picture."""
NETWORK, ARMS, SPEEDUPS = "resnet20", ("sensitivity", "uniform"), (2.0, 2.5, 3.0, 4.0)


def accuracies() -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(arm, stage) → speed-up and test top-1 in percent of what is measured; the whole network stands at 1."""
    rows = [row for row in map(json.loads, CELLS.read_text().splitlines()) if row["network"] == NETWORK]
    found = {(row["arm"], row["stage"], row["speedup"]): row["test_top1"] for row in rows if row.get("seed") == 0}
    whole = found["whole", "whole", 1.0]
    return {
        (arm, stage): [(1.0, whole), *((s, found[arm, stage, s]) for s in SPEEDUPS if (arm, stage, s) in found)]
        for arm in ARMS
        for stage in STAGES
    }


def accuracy() -> str:
    """Top-1 over speed-up, with and without repair."""
    left, right, top, bottom = 64, 520, 30, 290

    def place(speedup: float, top1: float) -> tuple[float, float]:
        return left + (speedup - 1) / 3 * (right - left), bottom - top1 / 100 * (bottom - top)

    parts = []
    for top1 in (0, 20, 40, 60, 80, 100):
        y = place(1, top1)[1]
        parts += [rule(left, y, right, y), words(left - 8, y + 5, f"{top1} %", color=GREY, size=12, anchor="end")]
    parts += [words(place(s, 0)[0], bottom + 20, f"{s:g}×", color=GREY, size=12) for s in (1, *SPEEDUPS)]
    parts.append(words((left + right) / 2, bottom + 42, "fewer multiply-adds", size=13))
    parts.append(words(left, top - 10, "test accuracy", size=13, anchor="start"))
    for (arm, stage), points in accuracies().items():
        color, name = STAGES[stage]
        parts.append(curve([place(*point) for point in points], color, dashed=arm == "uniform"))
        if arm == "sensitivity":
            x, y = place(*points[-1])
            parts.append(words(x + 12, y + 4, name, color=color, size=13, anchor="start"))
    parts += [rule(84, 252, 114, 252, INK), words(122, 257, "as much as each layer can lose", size=13, anchor="start")]
    dashes = f'<line x1="84" y1="274" x2="114" y2="274" stroke="{INK}" stroke-dasharray="6 4"/>'
    parts += [dashes, words(122, 279, "same share of every layer", size=13, anchor="start")]
    return picture(775, 345, "Test accuracy of a ResNet-20 over speed-up, with and without repair", parts)


def removal() -> str:
    """One family across three layers that a residual addition couples."""
    gone = PALE
    stream = [TEAL, gone, TEAL, TEAL, gone, TEAL]
    inner = [*[VIOLET] * 2, gone, VIOLET, gone, VIOLET]
    parts = []
    for x, name, colors in ((90, "conv1", stream), (290, "block.conv1", inner), (490, "block.conv2", stream)):
        parts += [words(x + 7, 58, name, size=13), cells(x, 76, colors, 18, 5)]
    parts += [arrow((125, 140), (275, 140), text="weights"), arrow((325, 140), (475, 140), text="weights")]
    parts += [arrow((125, 200), (200, 236), (480, 236), (620, 160)), words(340, 228, "added", color=GREY, size=12)]
    parts += [arrow((525, 140), (605, 140)), cells(628, 76, stream, 18, 5), words(637, 58, "sum", size=13)]
    parts.append(words(370, 26, "A square is a channel; grey ones are removed.", color=GREY, size=13))
    parts.append(words(370, 275, "Teal: one family. Its 2nd and 5th units go everywhere at once.", color=TEAL, size=13))
    parts.append(words(370, 296, "Violet: another family, which shrinks by itself.", color=VIOLET, size=13))
    return picture(740, 316, "Channels that an addition couples are removed together", parts)


def metanet() -> str:
    """Encode, rewrite, decode, prune; the zoo it learns from."""
    parts = [
        box(20, 30, 130, 64, "trained model\nany architecture"),
        arrow((150, 62), (196, 62)),
        box(200, 30, 140, 64, "neuron graph\nweights on its edges"),
        arrow((340, 62), (386, 62)),
        box(390, 20, 150, 84, "metanetwork\nmessages along edges,\nforwards and backwards", fill="#e6f4f1", edge=TEAL),
        arrow((540, 45), (596, 45)),
        arrow((540, 82), (570, 82), (570, 150), (596, 150)),
        box(600, 20, 150, 56, "rewritten weights\nsame architecture"),
        box(600, 122, 150, 56, "scores\nwhat each layer loses"),
        arrow((675, 76), (675, 118)),
        arrow((675, 178), (675, 212)),
        box(600, 216, 150, 44, "smaller model"),
        box(200, 176, 140, 84, "zoo of models\ntrained, pruned,\nsearched"),
        arrow((340, 218), (465, 218), (465, 108)),
        words(405, 240, "meta-training, once", color=GREY, size=12),
    ]
    return picture(770, 280, "A model becomes a graph, the metanetwork rewrites it, and it is pruned", parts)


def search() -> str:
    """The loop of candidates, and where their weights come from."""
    parts = [
        box(30, 40, 150, 64, "candidates\nthe width of each layer", fill="#efeafa", edge=VIOLET),
        arrow((180, 72), (236, 72)),
        box(240, 40, 150, 64, "weights for them\nmade in a moment"),
        arrow((390, 72), (446, 72)),
        box(450, 40, 150, 64, "accuracy\non training images"),
        arrow((525, 104), (525, 170), (184, 170)),
        box(30, 140, 150, 64, "next generation\nmutation, crossover"),
        arrow((105, 140), (105, 108)),
        arrow((600, 72), (636, 72)),
        box(640, 40, 110, 64, "best widths\njudged again"),
        words(315, 228, "either the model's own weights, pruned and repaired,", color=GREY, size=12),
        words(315, 246, "or those that a PruningNet generates for these widths", color=GREY, size=12),
        arrow((315, 212), (315, 108)),
    ]
    return picture(770, 262, "An evolutionary search over the widths of all layers", parts)


def dhp() -> str:
    """A weight is the product of two latents and a free part."""
    parts = [
        words(60, 34, "latents of inputs", size=13),
        cells(52, 50, [TEAL, TEAL, PALE, TEAL], 18, 5),
        words(60, 170, "latents of outputs", size=13),
        cells(52, 186, [VIOLET, PALE, VIOLET], 18, 5),
        arrow((84, 94), (206, 130)),
        arrow((84, 216), (206, 160)),
        box(210, 112, 150, 66, "weights generated\nfrom z of both ends"),
        arrow((360, 145), (416, 145)),
        box(420, 112, 140, 66, "training step\nlatents shrink", fill="#efeafa", edge=VIOLET),
        arrow((490, 112), (490, 60), (285, 60), (285, 108)),
        arrow((560, 145), (606, 145)),
        box(610, 112, 140, 66, "smaller model\nno small latents left"),
        words(430, 214, "Grey: latents at zero; their channels go.", color=GREY, size=13),
    ]
    return picture(770, 270, "DHP: weights are generated from latents, which shrink while the network learns", parts)


DRAWN: dict[str, Callable[[], str]] = {
    "accuracy": accuracy,
    "removal": removal,
    "metanet": metanet,
    "search": search,
    "dhp": dhp,
}


if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (HERE / f"{name}.svg").write_text(draw(), encoding="utf-8")
