"""Programs at other lengths and sizes of images than they were recorded with, and where they take no others."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from sized_networks import NETWORKS, Interpolated, Joined, Measured, Windows
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph import encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.fitting import Extents
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.trace.passes import record_pass
from metaprune_cli.graph.trace.sizes import Extent, evaluated
from metaprune_cli.models.programs import program_from_document, program_to_document, tensors_of
from metaprune_cli.pruning.check import check


def programs(model: nn.Module, inputs: Any) -> tuple[NeuronGraph, Captured]:
    graph = encode(model.eval(), inputs)
    return graph, Captured.of(model, graph, inputs)


def whole(model: nn.Module, inputs: Any) -> Program:
    graph, captured = programs(model, inputs)
    return captured.without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))


def half_of(graph: NeuronGraph) -> Tensor:
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family in graph.units.families:
        free = family.units[graph.units.prunable[family.units]]
        kept[free[: len(free) // 2]] = False
    return kept


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("name", NETWORKS)
def test_other_sizes_are_the_classes(name: str) -> None:
    """Whole: to the bit, from its file too. Without half of its units: what the masked class computes there."""
    torch.manual_seed(0)
    make, example, others, step = NETWORKS[name]
    model = make()
    graph, captured = programs(model, random(*example))
    program = captured.without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))
    assert [size.step for size in program.scripts["eval"].varies or ()] == [None, step, step]
    document = json.loads(json.dumps(program_to_document(program)))
    loaded = program_from_document(document, tensors_of(program))
    small = captured.without(graph, half_of(graph))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    with torch.no_grad():
        for shape in others:
            x = random(*shape)
            assert torch.equal(program(x), model(x))
            assert torch.equal(loaded(x), model(x))
            check(model, small, graph, half_of(graph), x)
    small.train()(random(*others[0])).sum().backward()


class Words(nn.Module):
    """Ids and a mask of one length, positions, a causal mask, a scale that is a number."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 8), nn.Embedding(16, 8)
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 20)
        self.register_buffer("ids", torch.arange(16).unsqueeze(0), persistent=False)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        b, n = input_ids.shape
        x = self.words(input_ids) + self.places(self.ids[:, :n])
        q, k, v = self.qkv(x).view(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4)
        seen = (
            torch.full((n, n), -1e4, device=x.device).triu(1)[None, None] + (1.0 - mask[:, None, None, :].to(x)) * -1e4
        )
        y = ((q @ k.transpose(-2, -1)) * 0.5 + seen).softmax(-1) @ v
        return self.head(x + y.transpose(1, 2).reshape(b, n, 8))


@pytest.mark.parametrize("length", [12, 16])
def test_other_lengths_of_ids_and_their_mask(length: int) -> None:
    """At 16, where there are no more positions, shorter ones alone are recorded."""

    def given(batch: int, n: int) -> dict[str, Tensor]:
        ids = torch.arange(batch * n).view(batch, n) % 20
        return {"input_ids": ids, "mask": (ids % 7 > 0).long()}

    torch.manual_seed(0)
    model = Words().eval()
    graph, captured = programs(model, given(1, length))
    small = captured.without(graph, half_of(graph))
    program = captured.without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))
    for batch, n in ((1, length), (3, 5), (2, 16), (1, 1)):
        with torch.no_grad():
            assert torch.equal(program(**given(batch, n)), model(**given(batch, n)))
        check(model, small, graph, half_of(graph), given(batch, n))
    with pytest.raises(
        InputError, match=r"expected: input_ids of \(any batch, a\), mask of \(any batch, a\); a any size"
    ):
        program(input_ids=given(1, 5)["input_ids"], mask=given(1, 6)["mask"])
    with pytest.raises(InputError, match="not made for inputs of these sizes"):
        program(**given(1, 17))  # longer than its table of positions


def test_a_mask_of_sizes_follows_the_models_type() -> None:
    program = whole(Words(), {"input_ids": torch.zeros(1, 8, dtype=torch.long), "mask": torch.ones(1, 8)})
    for dtype in (torch.float64, torch.bfloat16):
        given = {"input_ids": torch.zeros(2, 5, dtype=torch.long), "mask": torch.ones(2, 5, dtype=dtype)}
        assert program.to(dtype)(**given).dtype == dtype


def test_two_inputs_of_different_lengths_vary_apart() -> None:
    class Crossing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, source: Tensor, target: Tensor) -> Tensor:
            memory, x = self.words(source), self.words(target)
            seen = torch.zeros(target.size(1), source.size(1), device=x.device)
            return self.head(((x @ memory.transpose(1, 2)) + seen).softmax(-1) @ memory)

    model, ids = Crossing(), torch.zeros(1, 8, dtype=torch.long)
    program = whole(model, {"source": ids, "target": ids})
    given = {"source": torch.ones(2, 5, dtype=torch.long), "target": torch.ones(2, 11, dtype=torch.long)}
    assert torch.equal(program(**given), model(**given))


def test_images_that_have_to_be_square() -> None:
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x).flatten(2)
            side = int(y.shape[2] ** 0.5)
            return self.head(y.view(-1, 8, side, side))

    model = Square().eval()
    program = whole(model, random(1, 3, 16, 16))
    x = random(2, 3, 24, 24)
    assert torch.equal(program(x), model(x))
    with pytest.raises(InputError, match=r"x of \(any batch, 3, a, a\)"):
        program(random(1, 3, 24, 16))


FIXED = "This program was not made for inputs of these sizes."


def test_where_sizes_are_fixed_the_error_names_them() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 8 * 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x).flatten(1))

    program = whole(Flat(), random(1, 3, 8, 8))
    assert program(random(5, 3, 8, 8)).shape == (5, 3)
    with pytest.raises(
        InputError, match=r"expected: x of \(any batch, 3, 8, 8\)\n  got: x of \(1, 3, 8, 9\)"
    ) as caught:
        program(random(1, 3, 8, 9))
    assert caught.value.what == FIXED


def test_steps_are_named() -> None:
    program = whole(Joined(), random(1, 3, 16, 16))
    with pytest.raises(InputError, match=r"\(any batch, 3, a, b\); a like 16, in steps of 4 \(recorded at 16, 20"):
        program(random(1, 3, 18, 16))


def test_what_goes_another_way_at_other_sizes_is_fixed() -> None:
    """Where Python decides by the size, no program stands for both ways."""

    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.stem(x)
            return self.head(y.relu() if x.shape[2] == 8 and x.shape[3] == 8 else y.tanh())

    model = Deciding().eval()
    program = whole(model, random(1, 3, 8, 8))
    assert torch.equal(program(random(2, 3, 8, 8)), model(random(2, 3, 8, 8)))
    with pytest.raises(InputError, match="not made for inputs of these sizes"):
        program(random(1, 3, 9, 9))


SEEN = {"h": (32, 33, 38, 75, 43, 52), "w": (32, 35, 45, 58, 40, 63), "b": (2, 3, 5, 8, 4, 7)}


@pytest.mark.parametrize(
    "number",
    [
        *("h", "h*w", "b*h*w//4*4", "3*b*h", "h//8", "-(-w//7)", "-h%7", "-w%8//2", "-w%8-(-w%8)//2", "h//8*8"),
        *("h*w+1", "-(-h//8)*8", "h+w", "h-w", "2*h-1", "b*(h*w)*12", "-h", "h%8", "b*w+b"),
    ],
)
def test_what_a_number_is_made_of_is_found(number: str) -> None:
    known = Extents()
    for place, seen in enumerate(SEEN.values()):
        known.add(Extent(place, 0, seen))

    def at(sizes: tuple[int, ...]) -> int:
        return int(eval(number, {}, dict(zip(SEEN, sizes, strict=True))))

    points = [at(sizes) for sizes in zip(*SEEN.values(), strict=True)]
    expression = known.fit(tuple(points))
    wanted = expression is not None or number in ("b*h*w//4*4", "b*w+b")  # no kind of expression: the program is fixed
    assert wanted
    if expression is not None:
        for sizes in ((17, 61, 4), (64, 12, 1), (100, 101, 7)):
            assert evaluated(expression, lambda n, _, sizes=sizes: sizes[n]) == at(sizes)


def test_recording_costs_little_more_than_for_batches_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In passes: six recordings and a trace in each mode, two to see whether there is a batch, and a question."""
    passes = []

    def counted(*args: Any) -> Any:
        passes.append(1)
        return record_pass(*args)

    monkeypatch.setattr("metaprune_cli.graph.program.capture.record_pass", counted)
    whole(Windows(4), random(1, 3, 8, 8))
    assert len(passes) <= 14


Document = dict[str, Any]


@cache
def windows() -> Program:
    return whole(Windows(4), random(1, 3, 8, 8))


def of_windows() -> tuple[Document, dict[str, Tensor]]:
    return json.loads(json.dumps(program_to_document(windows()))), tensors_of(windows())


HOSTILE: tuple[Any, ...] = (
    *(["of", 10**6, 0], ["of", 0, 64], ["of", -1, 0], ["**", 2, 3], ["//", 8, 0], ["//", 8, ["of", 0, 2]], ["+", 1]),
    *(["%", 8, -1], ["+", 2**40, 1], "size", None, ["+", ["/", 1, 2], 1], ["of", 0, 3, 1], ["+", "a", 1], [1.5, 2]),
)


@pytest.mark.parametrize("expression", [*HOSTILE, "deep", "huge"], ids=str)
def test_absurd_sizes_in_files_are_refused(expression: Any) -> None:
    document, tensors = of_windows()
    if expression == "deep":
        for _ in range(100):
            expression = ["+", expression if isinstance(expression, list) else 1, 1]
    elif expression == "huge":
        expression = ["of", document["scripts"]["eval"]["inputs"][0], 2]
        for _ in range(8):
            expression = ["*", expression, 2**31]
    for script in document["scripts"].values():
        views = [step for step in script["steps"] if step["operator"] == "aten.view.default"]
        views[0]["args"][1][0] = {"size": expression}
    with pytest.raises(CorruptFileError):
        program_from_document(document, tensors)


@pytest.mark.parametrize(
    "varies",
    [
        *(3, [[]], [[[[0, 9]], [8], 1]], [[[[4, 0]], [8], 1]], [[[[0, 2]], [2**31, 8], 1]], [[[[0, 2]], ["8"], 1]]),
        *([[[[0, 2]], [8], 0]], [[[[0, 1]], [4, 8], None]]),
    ],
    ids=str,
)
def test_absurd_claims_of_what_may_vary_are_refused(varies: Any) -> None:
    document, tensors = of_windows()
    for script in document["scripts"].values():
        script["varies"] = varies
    with pytest.raises(CorruptFileError):
        program_from_document(document, tensors)


def test_files_of_older_versions_load() -> None:
    """They say which dimension is the batch, and give sizes as so much and so much for each of its items."""
    model = Measured().eval()
    document, tensors = of_old(model)
    program = program_from_document(document, tensors)
    x = random(5, 3, 8, 8)
    assert torch.equal(program(x), model(x))
    again = program_from_document(json.loads(json.dumps(program_to_document(program))), tensors_of(program))
    assert torch.equal(again(x), model(x))


def of_old(model: nn.Module) -> tuple[Document, dict[str, Tensor]]:
    """A program of the shape that files had: the batch alone varies, by numbers of its own."""
    program = whole(model, random(1, 3, 8, 8))
    document = json.loads(json.dumps(program_to_document(program)))
    for script in document["scripts"].values():
        del script["varies"]
        script["batched"], first = 0, script["inputs"][0]
        for step in script["steps"]:
            step["args"] = _older(step["args"], first)
    return document, tensors_of(program)


def _older(thing: Any, first: int) -> Any:
    if isinstance(thing, list):
        return [_older(part, first) for part in thing]
    if not isinstance(thing, dict) or "size" not in thing:
        return thing

    def at(expression: Any, batch: int) -> Any:
        if not isinstance(expression, list):
            return expression
        if expression[0] == "of":
            return (batch, 3, 8, 8)[expression[2]] if expression[1] == first else 8
        left, right = (at(part, batch) for part in expression[1:])
        return (
            {"+": left + right, "*": left * right, "//": left // max(right, 1), "%": left % max(right, 1), "/": 0}[
                expression[0]
            ]
            if expression[0] != "/"
            else left / right
        )

    zero, one = at(thing["size"], 0), at(thing["size"], 1)
    return zero if zero == one else {"size": [zero, one - zero]}


def test_positions_are_stretched_whatever_goes() -> None:
    """A parameter behind another tensor: its elements were taken for numbers of the other's."""
    graph = encode(Interpolated(), random(1, 3, 16, 16))
    assert sum(int(graph.units.prunable[f.units].sum()) for f in graph.units.families) > 0
