"""Hostile program documents: one good program, and what somebody who means harm could make of its document."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program
from metaprune_cli.models.programs import program_to_document, tensors_of

Document = dict[str, Any]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**12, 2**31, 2**63, -(2**63) - 1, 10**30, 10**400),
    *(0.5, float("nan"), float("inf"), "", "x", "a..b", "__class__", "\x1b]0;x\x07", "\ud800", "os", [], {}),
    *([[]], {"value": -1}, {"value": 10**9}, {"value": None}, {"size": [2**62, 2**62]}, {"size": "ab"}),
    *({"size": ["//", ["of", 0, 2], 0]}, {"size": ["*", ["of", 0, 0], 2**31]}, {"size": ["of", 10**9, 0]}),
    *({"dtype": "os"}, {"layout": "sparse_coo"}, {"device": "cuda"}, {"float": "1e999"}, {"complex": ["1", 2]}),
    *({"type_of": [0, "os"]}, {"dataclass": ["A", [["__class__", 1]]]}, {"named": ["x y", [["def", 1]]]}),
)
NAMES = (
    *("", "training", "forward", "scripts", "a..b", ".", "_parameters", "__class__", "__deepcopy__", "state_dict"),
    *("norm", "norm.weight.weight", "_constants", "a b", "x" * 10_000),
)
OPERATORS = (
    *("_reshape_alias.default", "as_strided.default", "as_strided_.default", "resize_.default", "set_.source_Tensor"),
    *("from_file.default", "_print.default", "save.default", "slice_inverse.default", "view.dtype", "to.device"),
    *("new_empty_strided.default", "empty_strided.default", "zeros.default", "full.default", "arange.default"),
    *("repeat.default", "expand.default", "constant_pad_nd.default", "rand.default", "native_batch_norm.default"),
    *("embedding.default", "gather.default", "_fft_c2r.default", "index_select.default", "pixel_shuffle.default"),
    *("upsample_nearest2d.default", "unfold.default", "im2col.default", "__getitem__.t", "nonzero.default"),
)


class Net(nn.Module):
    """Convolutions, a BatchNorm, an attention, an embedding of constants, several outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.stem(x)).relu().flatten(2).transpose(1, 2)
        x = x * torch.arange(x.size(1), device=x.device).unsqueeze(1)
        x = self.attention(x, x, x, need_weights=False)[0][:, torch.tensor([0, 3, 5])]
        return {"scores": self.head(x.mean(1)), "tokens": x}


@cache
def good_program() -> Program:
    """The program whose document is mutated; it takes (batch, 1, 4, 4)."""
    torch.manual_seed(0)
    model, x = Net().eval(), torch.randn(1, 1, 4, 4)
    graph = mp.encode(model, x)
    return Captured.of(model, graph, x).without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))


def good_document() -> Document:
    """A copy of its document, as it is in a file."""
    return json.loads(json.dumps(program_to_document(good_program())))  # type: ignore[no-any-return]


def good_tensors() -> dict[str, Tensor]:
    """Copies of its tensors, by the names they have in a file."""
    return {name: tensor.detach().clone() for name, tensor in tensors_of(good_program()).items()}


def hostile_programs(seed: int) -> Iterator[tuple[str, Document]]:
    """Documents without end, each a good one with one or two changes, by name; the same seed gives the same."""
    chance = random.Random(seed)
    good = good_document()
    count = 0
    while True:
        document = copy.deepcopy(good)
        kinds = [chance.choice(sorted(MUTATIONS)) for _ in range(chance.choice((1, 1, 2)))]
        for kind in kinds:
            with contextlib.suppress(AttributeError, LookupError, TypeError):  # the first change left nothing to change
                MUTATIONS[kind](document, chance)
        yield f"{seed}-{count}-{'-and-'.join(kinds)}".replace(" ", "-"), document
        count += 1


def _step(document: Document, chance: random.Random) -> dict[str, Any]:
    script = document.get("scripts", {}).get(chance.choice(("eval", "train")))
    steps = script.get("steps") if isinstance(script, dict) else None
    step = chance.choice(steps) if isinstance(steps, list) and steps else {}
    return step if isinstance(step, dict) else {}


def _anywhere(document: Document, chance: random.Random) -> None:
    """Walk down at random and put something else there."""
    here: Any = document
    for _ in range(chance.randint(0, 7)):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        below = [key for key in keys if isinstance(here[key], dict | list) and here[key]]
        if not below:
            break
        here = here[chance.choice(below)]
    keys = list(here) if isinstance(here, dict) else list(range(len(here)))
    if keys:
        here[chance.choice(keys)] = copy.deepcopy(chance.choice(VALUES))


def _lost(document: Document, chance: random.Random) -> None:
    step = _step(document, chance)
    if step:
        step.pop(chance.choice(sorted(step)))


def _nested(document: Document, chance: random.Random) -> None:
    deep: Any = 1
    for _ in range(chance.choice((60, 400, 900))):
        deep = chance.choice(([deep], {"tuple": [deep]}, {"dict": [["a", deep]]}))
    where = _step(document, chance)
    where[chance.choice(("args", "outputs", "kwargs"))] = [deep]


def _called(document: Document, chance: random.Random) -> None:
    _step(document, chance)["operator"] = "aten." + chance.choice(OPERATORS)


def _crafted(document: Document, chance: random.Random) -> None:
    """A call of another operator, with arguments that may be of the right types."""
    step = _step(document, chance)
    name = "aten." + chance.choice(OPERATORS)
    big = chance.choice((0, 1, 3, -5, 2**20, 2**31, 2**40, 2**62))
    tensor = next((arg for arg in step.get("args") or [] if isinstance(arg, dict) and "value" in arg), {"value": 0})
    arguments = (
        [tensor, [big] * 4],
        [[big, big]],
        [tensor, big],
        [tensor, [big] * 4, [big] * 4],
        [tensor, big, big, big],
    )
    step.update(operator=name, args=copy.deepcopy(list(chance.choice(arguments))), kwargs={})


def _numbers(document: Document, chance: random.Random) -> None:
    """Every whole number among the arguments of one step."""

    def changed(thing: Any) -> Any:
        if isinstance(thing, list):
            return [changed(part) for part in thing]
        if type(thing) is int and chance.random() < 0.5:
            return chance.choice((0, -1, thing + 1, 2**31, 2**40, 2**62, -(2**62)))
        return thing

    step = _step(document, chance)
    step["args"] = changed(step.get("args", []))


def _rewired(document: Document, chance: random.Random) -> None:
    """Another value where one is used or made."""
    step = _step(document, chance)
    number = chance.choice((-1, 0, chance.randint(0, 80), 10**9))
    if chance.random() < 0.5:
        step["outputs"] = [number]
    else:
        step["args"] = [{"value": number} if isinstance(arg, dict) else arg for arg in step.get("args") or []]


def _keyword(document: Document, chance: random.Random) -> None:
    name = chance.choice(("x=__import__('os').system('true'),y", "self", "dtype", "out", "__class__", ""))
    _step(document, chance).setdefault("kwargs", {})[name] = copy.deepcopy(chance.choice(VALUES))


def _renamed(document: Document, chance: random.Random) -> None:
    name = chance.choice(NAMES)
    for key in ("order", "parameters"):
        part = document.get(key)
        if isinstance(part, list) and part:
            part[chance.randrange(len(part))] = name
        elif isinstance(part, dict):
            part[name] = True


def _returned(document: Document, chance: random.Random) -> None:
    """What it returns, in a class of a name and fields that are code."""
    name = chance.choice(("A:\n  pass\nimport os", "x", "__import__('os')", 3))
    fields = [
        [chance.choice(("a", "a: b = c", "__init__", "__class__", 7, "def", "a")), {"value": 0}] for _ in range(2)
    ]
    script = document.get("scripts", {}).get("eval")
    if isinstance(script, dict):
        script[chance.choice(("outputs", "arguments"))] = {chance.choice(("dataclass", "named")): [name, fields]}


def _example(document: Document, chance: random.Random) -> None:
    shape = chance.choice(
        ([1, 1, 4, 4], [10**12], [1, 64, 4, 4], [1, 1, 2**31, 2**31], [], [-1, 1, 4, 4], [0, 1, 4, 4])
    )
    document["examples"] = [[shape, chance.choice(("float32", "int64", "bool", "complex64", "quint8", "os"))]]


MUTATIONS: dict[str, Callable[[Document, random.Random], None]] = {
    "anything anywhere": _anywhere,
    "something lost": _lost,
    "nested deeply": _nested,
    "another operator": _called,
    "a crafted call": _crafted,
    "other numbers": _numbers,
    "rewired": _rewired,
    "a keyword": _keyword,
    "renamed": _renamed,
    "a class returned": _returned,
    "another example": _example,
}
