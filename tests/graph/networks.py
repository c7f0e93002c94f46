"""Random networks from recipes: a recipe is data that prints itself, and every recipe is a network.

A failing example prints as, say, ``Recipe(2, (Step("conv", 1, 0, 0), Step("add", 1, 0, 0)))`` and can be pasted into a
regression test as it is: ``Network(Recipe(…))``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from layers import MAPS, WIDTHS, Do, Step, spatial
from token_layers import TOKENS, Attention
from torch import Tensor, nn

POSITIONS = {1: (8,), 2: (6, 6), 3: (4, 4, 4)}
CHANNELS, WORDS, TEXT = 3, 11, 5


@dataclass(frozen=True)
class Recipe:
    """A network.

    Attributes:
        dims: of the input's positions: 1, 2 or 3, or 0 for words.
        steps: the layers, in order.
        outputs: "tensor" (of one output), "tuple" or "dict".
    """

    dims: int
    steps: tuple[Step, ...]
    outputs: str = "tuple"


class Meet(nn.Module):
    """An earlier activation (or a second input) meets the present one: "add", "mul", "gate", "cat" or "cross".

    What does not fit is projected (channels) or averaged over its positions.
    """

    def __init__(self, how: str, x: Tensor, y: Tensor, dim: int, project: bool, stored: bool) -> None:
        super().__init__()
        self.how, self.dim, self.positions = how, dim, tuple(x.shape[2:]) if dim == 1 else tuple(x.shape[1:2])
        self.project = nn.Linear(y.size(1), x.size(dim)) if project or self._differs(x, y) else None
        if how == "cross":
            self.attention = Attention(x.size(-1), y.size(1), 2, 2, "separate", "sdpa" if stored else "matmul", stored)

    def _differs(self, x: Tensor, y: Tensor) -> bool:
        return self.how in ("add", "mul", "gate") and y.size(1) != x.size(self.dim)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``y`` has its channels in dimension 1."""
        if self.how == "cross":
            return x + self.attention(x, y.flatten(2).transpose(1, 2))
        if tuple(y.shape[2:]) != self.positions:
            y = y.flatten(2).mean(2).view(y.size(0), -1, *[1] * len(self.positions))
        if self.project is not None:
            y = self.project(y.movedim(1, -1)).movedim(-1, 1)
        if self.dim == -1:
            y = y.transpose(1, 2)
        if self.how == "cat":
            return torch.cat(
                [x, y.expand(-1, -1, *x.shape[2:]) if self.dim == 1 else y.expand(-1, x.size(1), -1)], self.dim
            )
        return x + y if self.how == "add" else x * (y.sigmoid() if self.how == "gate" else y)


class Head(nn.Module):
    """What an output is: scores from averaged, flattened or single positions, or the activation itself."""

    KINDS = ("mean", "flatten", "flatten positions first", "max", "every position", "raw")

    def __init__(self, kind: str, x: Tensor) -> None:
        super().__init__()
        self.kind = kind
        wide = kind.startswith("flatten")
        self.linear = None if kind == "raw" else nn.Linear(x.flatten(1).size(1) if wide else x.size(1), 3)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` has its channels in dimension 1."""
        if self.linear is None:
            return x
        if self.kind == "mean":
            x = x.flatten(2).mean(2)
        elif self.kind == "max":
            x = x.flatten(2).amax(2)
        elif self.kind == "flatten":
            x = x.flatten(1)
        else:
            x = x.flatten(2).transpose(1, 2)
            x = x if self.kind == "every position" else x.flatten(1)
        return self.linear(x)

    def extra_repr(self) -> str:
        return self.kind


class Network(nn.Module):
    """The network of a recipe, all parameters and buffers random, in evaluation mode.

    ``inputs`` are example inputs for it: floating-point maps, and words first where the recipe says so.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, self.outputs, self.tokens = recipe, recipe.outputs, recipe.dims == 0
        self.layers, self.heads = nn.ModuleList(), nn.ModuleList()
        self.reads: list[int | None] = []
        self.exits: list[int] = []
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            first = (
                torch.randint(WORDS, (1, TEXT)) if self.tokens else torch.randn(1, CHANNELS, *POSITIONS[recipe.dims])
            )
            more = sum(step.op == "input" for step in recipe.steps)
            self.inputs: tuple[Tensor, ...] = (first, *(torch.randn(1, CHANNELS, 6) for _ in range(more)))
            self._compose(recipe)
            self._randomise()
        self.eval()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor]:
        past = list(inputs[1:])
        x = inputs[0]
        for layer, read in zip(self.layers, self.reads, strict=True):
            x = layer(x) if read is None else layer(x, self._channels_first(past, read))
            past.append(x)
        found = [head(self._channels_first(past, at)) for head, at in zip(self.heads, self.exits, strict=True)]
        if self.outputs == "dict":
            return {f"output {i}": out for i, out in enumerate(found)}
        return found[0] if self.outputs == "tensor" else tuple(found)

    def _channels_first(self, past: list[Tensor], at: int) -> Tensor:
        return past[at].transpose(1, 2) if self.layouts[at] == "tokens" else past[at]

    def _compose(self, recipe: Recipe) -> None:
        """Choose the layers one after the other, each for the activation that the ones before it make."""
        self._past = list(self.inputs[1:])
        self.layouts = ["map"] * len(self._past)
        self._unread = len(self._past)
        self._x = self.inputs[0]
        if self.tokens:
            self._append(nn.Embedding(WORDS, WIDTHS[0]))
        else:
            self._append(MAPS["conv"](self._x, Step("conv", 1)))
        for step in recipe.steps:
            self._take(step)
        if recipe.outputs != "tensor" or not self.heads:
            self._exit(Head.KINDS[0])
        del self._past, self._x, self._unread

    def _take(self, step: Step) -> None:
        if step.op == "output":
            if not (self.heads and self.outputs == "tensor"):
                self._exit(Head.KINDS[step.a % len(Head.KINDS)])
        elif step.op == "again":
            self._again(step)
        elif step.op in MEETINGS:
            self._meet(step)
        else:
            self._turn(tokens=step.op in TOKENS)
            self._append((TOKENS if self.tokens else MAPS)[step.op](self._x, step))

    def _meet(self, step: Step) -> None:
        how, at = step.op, len(self._past) - 1 - step.a % (len(self._past))
        if how == "input":
            self._unread -= 1
            how, at = MEETINGS[step.a % 4], self._unread
        if how == "cross":
            self._turn(tokens=True)
        y = self._channels_first(self._past, at)
        self._append(Meet(how, self._x, y, -1 if self.tokens else 1, step.b % 2 == 1, step.c % 2 == 0), at)

    def _again(self, step: Step) -> None:
        """A layer once more, the same object, where it fits what has become of the activation."""
        at = len(self.layers) - 1 - step.a % len(self.layers)
        layer, before = self.layers[at], len(self.inputs) - 1 + at - 1
        if self.reads[at] is not None or before < len(self.inputs) - 1 or self.layouts[before] != self._layout():
            return
        dim, wanted = (-1, 2) if self.tokens else (1, 1)
        if self._x.dim() != self._past[before].dim():
            return
        if self._x.size(dim) != self._past[before].size(wanted):
            into, out = self._x.size(dim), self._past[before].size(wanted)
            kind = nn.Linear if self.tokens else spatial(self._x, nn.Conv1d, nn.Conv2d, nn.Conv3d)
            self._append(kind(into, out) if self.tokens else kind(into, out, 1))
        if self._x.shape == self._past[before].shape:
            self._append(layer)

    def _turn(self, tokens: bool) -> None:
        if tokens != self.tokens:
            self.tokens = tokens
            as_tokens = Do("as tokens", lambda x: x.flatten(2).transpose(1, 2))
            self._append(as_tokens if tokens else Do("as a map", lambda x: x.transpose(1, 2)))

    def _append(self, layer: nn.Module, read: int | None = None) -> None:
        self.layers.append(layer)
        self.reads.append(read)
        layer.eval()
        self._x = layer(self._x) if read is None else layer(self._x, self._channels_first(self._past, read))
        self._past.append(self._x)
        self.layouts.append(self._layout())

    def _exit(self, kind: str) -> None:
        self.exits.append(len(self._past) - 1)
        self.heads.append(Head(kind, self._channels_first(self._past, self.exits[-1])))

    def _layout(self) -> str:
        return "tokens" if self.tokens else "map"

    def _randomise(self) -> None:
        for tensor in [*self.parameters(), *self.buffers()]:
            if tensor.is_floating_point():
                spread = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 1.0
                tensor.uniform_(0.4, 1.4) if tensor.dim() < 2 else tensor.normal_(std=spread)


MEETINGS = ("add", "mul", "cat", "gate", "cross", "input")
"""Steps in which two activations meet; a: how long ago the other one was, b: projected even if it fits."""


def recipes(max_steps: int = 7) -> st.SearchStrategy[Recipe]:
    """Recipes; they shrink to fewer steps, smaller numbers and earlier kinds of layers."""
    number = st.integers(0, 7)
    maps, tokens = [*MAPS, *MEETINGS, "again", "output"], [*TOKENS, *MEETINGS, "again", "output"]

    def of(ops: list[str], dims: list[int]) -> st.SearchStrategy[Recipe]:
        steps = st.lists(st.builds(Step, st.sampled_from(ops), number, number, number), min_size=1, max_size=max_steps)
        return st.builds(Recipe, st.sampled_from(dims), steps.map(tuple), st.sampled_from(["tensor", "tuple", "dict"]))

    return of(maps, [2, 1, 3]) | of(tokens, [0, 1, 2]) | of([*maps, *TOKENS], [2, 1, 3])
