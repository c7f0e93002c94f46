"""Checkpoints as they lie on disks: each kind loads and says what was taken, or is refused as what it is."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models import Loaded, open_model
from metaprune_cli.models.adapting import Adapted, check_numbers
from metaprune_cli.models.digest import model_sha256
from metaprune_cli.workflows.paths import find_sources

States = dict[str, Tensor]
ARCH = f"{__name__}:Net"


class Net(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.a, self.n, self.o = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.o(self.n(self.a(x)).relu().mean((2, 3)))
        return out


def states() -> States:
    torch.manual_seed(0)
    return Net().eval().state_dict()


def floats(change: Callable[[Tensor], Any]) -> States:
    return {name: change(value) if value.is_floating_point() else value for name, value in states().items()}


def opened(content: object, folder: Path, key: str | None = None) -> Loaded:
    torch.save(content, folder / "m.pt")
    return open_model(folder / "m.pt", arch=ARCH, input_shape=(3, 8, 8), key=key)


def before(prefix: str) -> States:
    return {prefix + name: tensor for name, tensor in states().items()}


WITHOUT_COUNTERS = {name: tensor for name, tensor in states().items() if "num_batches" not in name}
LOADS: dict[str, tuple[object, tuple[str, ...]]] = {
    "plain": (states(), ()),
    "data parallel": (
        {"state_dict": before("module."), "best_prec1": 93.6},
        ("using entry state_dict", "removed the prefix module. from all names"),
    ),
    "Lightning": (
        {"state_dict": before("model."), "hyper_parameters": {"lr": 0.1}},
        ("using entry state_dict", "removed the prefix model. from all names"),
    ),
    "two wrappers": (before("backbone.net."), ("removed the prefix backbone.net. from all names",)),
    "another key": ({"net": states(), "epoch": 3}, ("using entry net",)),
    "a key of nobody": ({"weights_of_mine": states(), "step": 3}, ("using entry weights_of_mine",)),
    "an optimiser beside it": (
        {"weights": states(), "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{}]}},
        ("using entry weights",),
    ),
    "an average beside it": (
        {"state_dict": states(), "state_dict_ema": floats(lambda v: v / 2)},
        ("using entry state_dict (the file also has state_dict_ema; choose it with --key)",),
    ),
    "settings beside it": (
        {"model": states(), "args": argparse.Namespace(lr=0.1)},
        ("using entry model",),
    ),
    "half": (floats(Tensor.half), ("cast 8 entries from float16 to float32",)),
    "bfloat16": (floats(Tensor.bfloat16), ("cast 8 entries from bfloat16 to float32",)),
    "double": (floats(Tensor.double), ("cast 8 entries from float64 to float32",)),
    "half, counters too": (
        {name: value.half() for name, value in states().items()},
        ("cast 8 entries from float16 to float32", "cast 1 entry from float16 to int64"),
    ),
    "without counters": (WITHOUT_COUNTERS, ("set 1 missing num_batches_tracked to 0",)),
    "a profiler's": (
        {**states(), "total_ops": torch.zeros(1), "a.total_params": torch.zeros(1)},
        ("left out a.total_params, total_ops, which are not part of a model",),
    ),
    "an averaged model": (
        {"n_averaged": torch.tensor(3), **before("module.")},
        ("removed the prefix module. from all names", "left out n_averaged, which are not part of a model"),
    ),
    "a part of a larger one": (
        {**before("backbone."), "head.weight": torch.ones(2, 2)},
        ("using the 9 of 10 entries that begin with backbone.",),
    ),
    "parameters": (floats(nn.Parameter), ()),
}
HALF = ("half", "bfloat16", "half, counters too")


@pytest.mark.parametrize("kind", LOADS)
def test_it_loads_and_says_what_was_taken(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    content, notes = LOADS[kind]
    with caplog.at_level(logging.WARNING):
        loaded = opened(content, tmp_path)
    assert loaded.notes == tuple(notes)
    assert caplog.messages == ([f"{tmp_path / 'm.pt'}: {'; '.join(notes)}"] if notes else [])
    expected = (
        floats(lambda v: (v.bfloat16() if kind == "bfloat16" else v.half()).float()) if kind in HALF else states()
    )
    torch.testing.assert_close(loaded.model.state_dict(), expected, rtol=0, atol=0)


@pytest.mark.parametrize("key", ["state_dict_ema", "teacher"])
def test_a_key_takes_another_entry_or_a_part_of_the_names(key: str, tmp_path: Path) -> None:
    ema = floats(lambda v: v / 2)
    nested = {"state_dict": states(), "state_dict_ema": ema}
    flat = before("student.") | {f"teacher.{name}": tensor for name, tensor in ema.items()}
    loaded = opened(nested if key == "state_dict_ema" else flat, tmp_path, key)
    torch.testing.assert_close(loaded.model.state_dict(), ema, rtol=0, atol=0)
    assert key in loaded.notes[0]


def test_which_of_several_is_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)several state dicts.*got: one, two\n.*next step: --key one"):
        opened({"one": states(), "two": states()}, tmp_path)
    with pytest.raises(InputError, match=r"(?s)contains several models.*begin with student\.,.*--key student"):
        opened(before("student.") | before("teacher."), tmp_path)
    with pytest.raises(InputError, match=r"(?s)no state dict under 'ema'.*expected: state_dict\n"):
        opened({"state_dict": states()}, tmp_path, "ema")


def test_shapes_that_are_the_files_own_are_said(tmp_path: Path) -> None:
    loaded = opened({**states(), "o.weight": torch.ones(10, 8), "o.bias": torch.ones(10)}, tmp_path)
    assert loaded.model.o.out_features == 10
    assert loaded.notes == ("kept the file's shapes of o.weight [10, 8] for [4, 8], o.bias [10] for [4]",)


def test_values_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)not finite.*o\.bias: 4 of 4.*m\.pt"):
        opened({**states(), "o.bias": torch.full((4,), float("nan"))}, tmp_path)
    wrong = states()["a.weight"].clone()
    wrong.view(-1)[3] = float("inf")
    with pytest.raises(InputError, match=r"a\.weight: 1 of 216"):
        opened({**states(), "a.weight": wrong}, tmp_path)


KINDS_OF_NUMBERS = [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64]


@pytest.mark.parametrize("dtype", KINDS_OF_NUMBERS, ids=str)
def test_numbers_of_every_type_are_looked_at(dtype: torch.dtype) -> None:
    sound = torch.ones(3, 2).to(dtype)
    sound = sound.conj() if dtype.is_complex else sound
    check_numbers({"a": (sound, True), "nothing": (torch.empty(0, dtype=dtype), True)}, Path("m.pt"))
    wrong = torch.tensor([1.0, float("nan")]).to(dtype)
    with pytest.raises(InputError, match="a: 1 of 2"):
        check_numbers({"a": (wrong, False)}, Path("m.pt"))


def test_a_dictionary_in_itself_ends(tmp_path: Path) -> None:
    inside: dict[str, object] = {}
    inside.update({f"k{number}": inside for number in range(50)})
    with pytest.raises(InputError, match="The file contains no state dict"):
        opened(inside, tmp_path)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "pointer of Git LFS"),
        (b"<!doctype html><html></html>", "a web page"),
        (b"<HTML><body>404", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"GGUF\x03\x00\x00\x00", "GGUF"),
        (b"\x1f\x8b\x08\x00", "packed by gzip"),
        (b"BZh91AY", "packed by bzip2"),
        (b"\xfd7zXZ\x00", "packed by xz"),
        (b"\x93NUMPY\x01\x00", "one array of NumPy"),
        (b'{"metadata": {}}', "a text in JSON"),
        (b"", "The file is empty"),
    ],
)
def test_other_files_are_named_as_what_they_are(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(CorruptFileError, match=rf"(?s){what}.*next step"):
        open_model(tmp_path / "m.pt", arch=ARCH)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("m.onnx", "a program in ONNX"),
        ("m.msgpack", "as Flax writes it"),
        ("__0_0.distcp", "dcp_to_torch"),
        ("m.tar", "tar"),
    ],
)
def test_other_files_are_named_by_their_suffix(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(CorruptFileError, match=rf"(?s){what}.*next step|next step.*{what}"):
        open_model(tmp_path / name, arch=ARCH)


def test_arrays_of_numpy_are_named(tmp_path: Path) -> None:
    numpy.savez(tmp_path / "m.npz", **{name: tensor.numpy() for name, tensor in states().items()})
    with pytest.raises(InputError, match=r"(?s)NumPy arrays.*torch\.from_numpy"):
        open_model(tmp_path / "m.npz", arch=ARCH)


def in_parts(folder: Path, entries: States | None = None) -> Path:
    """The entries (the states, if none are given) in two files, and their index."""
    entries = entries or states()
    files = {name: f"pytorch_model-0000{1 + (i > 3)}-of-00002.bin" for i, name in enumerate(entries)}
    for file in sorted(set(files.values())):
        torch.save({name: tensor for name, tensor in entries.items() if files[name] == file}, folder / file)
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return index


def test_a_model_in_several_files_is_opened_by_its_index(tmp_path: Path) -> None:
    index = in_parts(tmp_path)
    loaded = open_model(index, arch=ARCH, input_shape=(3, 8, 8))
    torch.testing.assert_close(loaded.model.state_dict(), states(), rtol=0, atol=0)
    assert loaded.notes == ("using all 2 files of the model",)
    (found,) = find_sources([tmp_path], ("model",)).files
    assert (found.path, str(found.named("graph"))) == (index, "pytorch_model.graph.safetensors")
    before = model_sha256(index)
    torch.save({}, tmp_path / "pytorch_model-00002-of-00002.bin")
    assert model_sha256(index) != before


def test_a_key_takes_a_part_of_a_model_in_several_files(tmp_path: Path) -> None:
    index = in_parts(tmp_path, before("teacher.") | {"other": torch.zeros(2)})
    loaded = open_model(index, arch=ARCH, input_shape=(3, 8, 8), key="teacher")
    torch.testing.assert_close(loaded.model.state_dict(), states(), rtol=0, atol=0)
    with pytest.raises(InputError, match="no state dict under 'student'"):
        open_model(index, arch=ARCH, key="student")


def test_a_part_of_a_model_names_the_index(tmp_path: Path) -> None:
    index = in_parts(tmp_path)
    with pytest.raises(InputError, match=r"(?s)one of the 2 that a model is in.*give .*index\.json"):
        open_model(tmp_path / "pytorch_model-00002-of-00002.bin", arch=ARCH)
    index.write_text(json.dumps({"weight_map": {"a.weight": "../m.bin"}}))
    with pytest.raises(CorruptFileError, match="names files outside its folder"):
        open_model(index, arch=ARCH)


def test_a_folder_without_a_model_says_what_is_in_it(tmp_path: Path) -> None:
    torch.save(states(), tmp_path / "weights.ckpt")
    with pytest.raises(InputError, match=r"models to give by name: weights\.ckpt"):
        find_sources([tmp_path], ("model",))
    (tmp_path / ".metadata").write_bytes(b"")
    with pytest.raises(InputError, match="dcp_to_torch"):
        find_sources([tmp_path], ("model",))


def test_a_whole_number_that_is_none_any_more_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 mismatched: n\.num_batches_tracked \[\] for \[\] of whole numbers"):
        opened({**states(), "n.num_batches_tracked": torch.tensor(0.5)}, tmp_path)


@pytest.mark.parametrize(
    ("own", "value", "taken"),
    [
        (torch.int64, 3.0, True),
        (torch.bool, 1.0, True),
        (torch.bool, 2.0, False),
        (torch.uint8, 300.0, False),
        (torch.int64, float("inf"), False),
        (torch.int64, 0.5, False),
        (torch.complex64, 1.0, False),
    ],
)
def test_a_cast_back_loses_nothing(own: torch.dtype, value: float, taken: bool, tmp_path: Path) -> None:
    adapted = Adapted("own", tmp_path)({"x": torch.zeros(2, dtype=own)}, {"x": torch.full((2,), value)})
    assert (adapted["x"].dtype == own) is taken
    assert adapted["x"].to(torch.float32).tolist() == [value, value]


def test_exported_programs_are_named_as_what_they_are(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Net().eval(), (torch.ones(1, 3, 8, 8),)), tmp_path / "m.pt2")
    with pytest.raises(InputError, match=r"(?s)torch\.export.*state_dict.*--arch"):
        open_model(tmp_path / "m.pt2")


def test_a_whole_module_opens_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\nclass Own(nn.Linear):\n    pass\ndef make():\n    return Own(3, 2)\n"
    (tmp_path / "own_network.py").write_text(source)
    module = types.ModuleType("own_network")
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "own_network", module)
    torch.save(module.make().half(), tmp_path / "m.pt")
    monkeypatch.delitem(sys.modules, "own_network")
    with pytest.raises(CorruptFileError, match="--trust-pickle"):
        open_model(tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"(?s)module whose code cannot be found.*folder that has that module"):
        open_model(tmp_path / "m.pt", trust_pickle=True)
    monkeypatch.chdir(tmp_path)
    loaded = open_model(tmp_path / "m.pt", trust_pickle=True)
    assert loaded.architecture.name == "own_network:Own"
    assert loaded.notes == ("cast from float16 to float32",)
    assert {tensor.dtype for tensor in loaded.model.state_dict().values()} == {torch.float32}


def test_what_a_script_had_in_itself_is_found_in_the_architectures_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Net, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "Net", Net, raising=False)
    torch.save(Net(), tmp_path / "m.pt")
    monkeypatch.delattr(sys.modules["__main__"], "Net")
    with pytest.raises(InputError, match=r"(?s)code cannot be found.*--arch SCRIPT:FACTORY"):
        open_model(tmp_path / "m.pt", trust_pickle=True)
    loaded = open_model(tmp_path / "m.pt", trust_pickle=True, arch=ARCH)
    assert isinstance(loaded.model, Net)
