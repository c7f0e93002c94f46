"""Programs of people who mean harm: reading one runs none of its code, and leads to no memory but its tensors'."""

from __future__ import annotations

import itertools
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile.programs import good_document, good_program, good_tensors, hostile_programs
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError, InputError, MetapruneError
from metaprune_cli.graph import encode
from metaprune_cli.graph.operators.registry import guarded
from metaprune_cli.graph.program.allowed import is_allowed
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.fields import Fields
from metaprune_cli.models.programs import program_from_document, program_to_document, tensors_of

aten = torch.ops.aten
Document = dict[str, Any]


def steps_of(document: Document) -> list[Document]:
    return document["scripts"]["eval"]["steps"]  # type: ignore[no-any-return]


def crafted(operator: str, *args: Any, **kwargs: Any) -> Document:
    """The good document with one more step; ``X`` is the input."""
    document = good_document()
    for script in document["scripts"].values():
        x = {"value": script["inputs"][0]}
        given = [x if arg == "X" else arg for arg in args]
        step = {"operator": operator, "args": given, "kwargs": kwargs, "outputs": [10**6], "single": True}
        script["steps"].append(step)
    return document


def refused(document: Any, tensors: dict[str, Tensor] | None = None) -> CorruptFileError:
    with pytest.raises(CorruptFileError) as caught:
        program_from_document(document, good_tensors() if tensors is None else tensors)
    assert caught.value.exit_code == 4
    return caught.value


def a_keyword(document: Document, code: str) -> None:
    steps_of(document)[0]["kwargs"] = {f"x={code}, y": 1}


def a_class_among_arguments(document: Document, code: str) -> None:
    steps_of(document)[0]["args"].append({"dataclass": [f"{code} or dict", [["a", 1]]]})


def a_class_returned(document: Document, code: str) -> None:
    document["scripts"]["eval"]["outputs"] = {"dataclass": ["A", [[f"a: {code}", {"value": 0}]]]}


def a_field_annotated(document: Document, code: str) -> None:
    document["scripts"]["eval"]["arguments"][0][1] = {"named": ["A", [[code, {"value": 0}]]]}


INJECTIONS: tuple[Callable[[Document, str], None], ...] = (
    a_keyword,
    a_class_among_arguments,
    a_class_returned,
    a_field_annotated,
)


@pytest.mark.parametrize("inject", INJECTIONS, ids=lambda inject: inject.__name__)
def test_no_code_of_a_document_runs(inject: Callable[[Document, str], None], tmp_path: Path) -> None:
    document, mark = good_document(), tmp_path / "it ran"
    inject(document, f"__import__('pathlib').Path({str(mark)!r}).touch()")
    refused(document)
    assert not mark.exists()


@pytest.mark.parametrize("key", ["dtype", "memory_format", "layout"])
@pytest.mark.parametrize("name", ["os", "load", "__class__", "sparse_coo", "quint8", 3, None, ["os"]])
def test_names_come_out_of_tables(key: str, name: Any) -> None:
    document = good_document()
    steps_of(document)[0]["args"][0] = {key: name}
    refused(document)
    document = good_document()
    document["examples"][0][1] = name
    refused(document)


REFUSED = (
    ("aten.as_strided.default", "X", [4, 4], [2**40, 1]),
    ("aten._reshape_alias.default", "X", [4, 4], [2**40, 1]),
    ("aten.as_strided_.default", "X", [1, 1, 4, 4], [1, 1, 2**62, 2**62]),
    ("aten.resize_.default", "X", [10**6]),
    ("aten.set_.source_Tensor", "X", "X"),
    ("aten.from_file.default", "/etc/passwd", False, 10),
    ("aten._print.default", "hello"),
    ("aten.new_empty_strided.default", "X", [1], [10**12]),
    ("aten.zeros.default", [10**12]),
    ("aten.arange.default", 10**12),
    ("aten.repeat.default", "X", [10**4, 10**4, 10**4, 1]),
    ("aten.expand.default", "X", [10**6, 10**6, 4, 4]),
    ("aten.constant_pad_nd.default", "X", [0, 10**11]),
    ("aten.native_batch_norm.default", "X", None, None, None, None, True, 0.1),
    ("aten.relu.default", "X", "X"),
    ("aten.relu.default",),
    ("aten.sum.dim_IntList", "X", ["a"]),
    ("aten.sum.dim_IntList", "X", [10**30]),
    ("aten.unique_consecutive.default", "X"),
    ("aten.upsample_nearest2d.default", "X", [4, 4], 1e-30, 1e-30),
    ("os.system.default", "true"),
    ("aten.add.__class__", "X", "X"),
    ("aten.__init__.__globals__", "X"),
)


@pytest.mark.parametrize("call", REFUSED, ids=lambda call: "-".join(str(part) for part in call[:1]))
def test_operators_and_arguments_that_are_refused(call: tuple[Any, ...]) -> None:
    refused(crafted(*call))


def test_what_is_rightly_crafted_is_read() -> None:
    program = program_from_document(crafted("aten.relu.default", "X"), good_tensors())
    x = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(program(x), good_program().eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["training", "forward", "scripts", "a..b", "", ".", "__deepcopy__", "_buffers", "norm"]
)
def test_names_that_would_overwrite_something_are_refused(name: str) -> None:
    document, tensors = good_document(), good_tensors()
    refused({**document, "order": [*document["order"], name]}, {**tensors, name: torch.zeros(1)})


@pytest.mark.parametrize("shape", [[10**12], [-1], "ab", None, [1.5], [1] * 40])
def test_examples_out_of_proportion_are_refused(shape: Any) -> None:
    refused({**good_document(), "examples": [[shape, "float32"]]})


def test_a_batch_norm_has_as_many_statistics_as_channels() -> None:
    tensors = good_tensors()
    refused(good_document(), {**tensors, "norm.running_mean": torch.zeros(1)})


@pytest.mark.parametrize(
    "document", [None, 1, 10**400, "x", [], {}, float("nan"), {"scripts": None}, {"scripts": {"eval": 1}}]
)
def test_documents_of_other_types_are_refused(document: Any) -> None:
    refused(document)


def test_deep_nests_are_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    document = good_document()
    steps_of(document)[0]["args"] = deep
    refused(document)


def test_hostile_documents_end_in_one_error_or_run_in_peace() -> None:
    tensors, x = good_tensors(), torch.randn(2, 1, 4, 4)
    outcomes = []
    for name, document in itertools.islice(hostile_programs(0), 150):
        try:
            program = program_from_document(document, {key: tensor.clone() for key, tensor in tensors.items()})
        except CorruptFileError:
            outcomes.append("refused")
            continue
        try:
            program(x)
        except (RuntimeError, IndexError, MetapruneError):
            outcomes.append(f"does not run: {name}")
        else:
            outcomes.append("runs")
    assert outcomes.count("refused") > 100
    assert {name for name, _ in itertools.islice(hostile_programs(0), 3)} == {
        name for name, _ in itertools.islice(hostile_programs(0), 3)
    }


BEYOND = torch.tensor([10**9])
INDEXED: dict[str, Callable[[Tensor], Any]] = {
    "gather.default": lambda i: (torch.ones(4, 4), 0, i.expand(1, 4)),
    "index.Tensor": lambda i: (torch.ones(4, 4), [i]),
    "_unsafe_index.Tensor": lambda i: (torch.ones(4, 4), [i]),
    "index_select.default": lambda i: (torch.ones(4, 4), 0, i),
    "embedding.default": lambda i: (torch.ones(4, 4), i),
    "scatter.value": lambda i: (torch.ones(4, 4), 0, i.expand(1, 4), 1.0),
    "scatter_add.default": lambda i: (torch.ones(4, 4), 0, i.expand(1, 4), torch.ones(1, 4)),
    "index_put_.default": lambda i: (torch.ones(4, 4), [i], torch.ones(())),
    "index_add.default": lambda i: (torch.ones(4, 4), 0, i, torch.ones(1, 4)),
    "index_copy.default": lambda i: (torch.ones(4, 4), 0, i, torch.ones(1, 4)),
    "take.default": lambda i: (torch.ones(4, 4), i),
    "max_unpool2d.default": lambda i: (torch.ones(1, 1, 1, 1), i.view(1, 1, 1, 1), [2, 2]),
    "_embedding_bag.default": lambda i: (torch.ones(4, 4), i, torch.tensor([0])),
}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", INDEXED)
def test_torch_checks_indices(name: str, sign: int) -> None:
    packet, overload = name.split(".")
    operator = getattr(getattr(aten, packet), overload)
    assert is_allowed(operator)
    with pytest.raises((IndexError, RuntimeError), match=r"out of|invalid|valid range"):
        guarded(operator)(*INDEXED[name](BEYOND * sign))


UNCHECKED: dict[str, tuple[Any, ...]] = {
    "native_batch_norm.default": (torch.ones(2, 640, 3), None, None, torch.ones(1), torch.ones(1), True, 0.1, 1e-5),
    "_fft_c2r.default": (torch.ones(2, 3, dtype=torch.complex64), [1], 0, 1000),
    "_fft_r2c.default": (torch.ones(2, 3), [7], 0, True),
    "_weight_norm_interface.default": (torch.ones(64, 3), torch.ones(1, 1), 0),
    "rrelu_with_noise.default": (torch.ones(1000), torch.ones(1), 0.1, 0.3, True),
    "as_strided_.default": (torch.ones(2, 2), [2, 2], [2**62, 2**62]),
    "scaled_dot_product_attention.default": (torch.ones(1, 1, 4, 8), torch.ones(1, 1, 4, 8), torch.ones(1, 1, 64, 8)),
    "upsample_nearest1d.default": (torch.ones(1, 1, 8), [4], 1e-30),
}


@pytest.mark.parametrize("name", UNCHECKED)
def test_what_kernels_do_not_check_is_checked(name: str) -> None:
    packet, overload = name.split(".")
    with pytest.raises(InputError, match="The program cannot run"):
        guarded(getattr(getattr(aten, packet), overload))(*UNCHECKED[name])


def test_guards_leave_right_arguments_as_they_are() -> None:
    import torchvision

    boxes = torch.tensor([[0.0, 0.5, 0.5, 3.0, 3.0], [1.0, -2.0, 0.0, 9.0, 2.0]])
    maps = torch.randn(2, 3, 4, 4)
    operator = torch.ops.torchvision.roi_align.default
    expected = torchvision.ops.roi_align(maps, boxes, (2, 2))
    assert torch.equal(guarded(operator)(maps, boxes, 1.0, 2, 2, -1, False), expected)
    wild = torch.tensor([[1e9, 0, 0, 2, 2], [0, float("nan"), 0, 2, 2]])
    assert guarded(operator)(maps, wild, 1.0, 2, 2, -1, False).shape == (2, 3, 2, 2)
    spectrum = torch.fft.rfft(torch.randn(2, 6))
    assert torch.equal(guarded(aten._fft_c2r.default)(spectrum, [1], 2, 6), torch.fft.irfft(spectrum, 6))
    quotient = guarded(aten.div.Tensor_mode)
    lowest = torch.tensor([-(2**63), 7])
    assert quotient(lowest, torch.tensor([-1, -1]), rounding_mode="trunc").tolist() == [-(2**63), -7]
    assert guarded(aten.empty.memory_format)([3]).tolist() == [0, 0, 0]


Pair = namedtuple("Pair", "scores count")


@dataclass
class Output(OrderedDict):  # type: ignore[type-arg]
    logits: Any
    values: Any


class Returning(nn.Module):
    def __init__(self, kind: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.kind = nn.Linear(4, 3), kind

    def forward(self, x: Tensor) -> Any:
        return self.kind(self.a(x), x.sum(1))


@pytest.mark.parametrize("kind", [Pair, Output])
def test_classes_come_back_as_fields(kind: Any) -> None:
    model, x = Returning(kind).eval(), torch.randn(1, 4)
    graph = encode(model, x)
    program = Captured.of(model, graph, x).without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))
    assert type(program(x)) is kind
    read = program_from_document(program_to_document(program), tensors_of(program))
    again = program_from_document(program_to_document(read), tensors_of(read))
    first, second = vars(kind)["_fields"] if kind is Pair else ("logits", "values")
    x = torch.randn(5, 4)
    for found in (read(x), again(x)):
        assert isinstance(found, Fields)
        assert repr(found).startswith(f"{kind.__name__}({first}=")
        assert found[first] is getattr(found, first) is found[0]
        assert torch.equal(getattr(found, second), x.sum(1))
        assert list(dict(found)) == [first, second]  # type: ignore[call-overload]
        one, two = found
        assert one is found[0]
        assert two is found[1]


@pytest.mark.parametrize(
    ("operator", "asked"),
    [
        ("dist", lambda x: torch.dist(x, x * 2)),
        ("_linalg_check_errors", lambda x: torch.linalg.inv(x.T @ x + torch.eye(4)).sum()),  # which makes nothing
    ],
)
def test_a_program_that_no_file_may_hold_is_not_made(operator: str, asked: Callable[[Tensor], Tensor]) -> None:
    class Asking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x).view(-1, 6) + asked(x)

    model, x = Asking().eval(), torch.randn(1, 4)
    graph = encode(model, x)
    with pytest.raises(MetapruneError, match=rf"no program may call, at aten\.{operator}"):
        Captured.of(model, graph, x).without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))
