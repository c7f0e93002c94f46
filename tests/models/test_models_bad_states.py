"""State dicts that no layer can compute with, and archives that are larger inside than outside."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models import load_model
from metaprune_cli.models.state_files import read_state_file


def jagged() -> Tensor:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


def inside_itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    return content


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: {"w": torch.ones(2, device="meta")}, "w: a tensor on meta"),
        (lambda: {"w": torch.eye(2).to_sparse()}, "w: a sparse_coo tensor"),
        (lambda: {"w": torch.eye(2).to_sparse_csr()}, "w: a sparse_csr tensor"),
        (lambda: {"w": torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8)}, "w: numbers of type qint8"),
        (lambda: {"w": torch.ones(2).to(torch.float8_e4m3fn)}, "w: numbers of type float8_e4m3fn"),
        (lambda: {"w": torch.ones(1).expand(10**6, 10**6)}, "w: 1000000000000 numbers, more than the file has bytes"),
        (lambda: {"w": torch.ones(2), 3: torch.ones(2)}, "3: its name is of type int"),
        (lambda: {"w": torch.ones(2), "v": {"u": torch.ones(2)}}, "v: dict"),
        (inside_itself, "state_dict: dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_model_is_made_of_it(make: Callable[[], object], problem: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of tensors that are new, or deprecated
        torch.save(make(), tmp_path / "m.pt")
        with pytest.raises(InputError, match=problem):
            read_state_file(tmp_path / "m.pt")


def test_tensors_under_other_names_are_plain_ones(tmp_path: Path) -> None:
    torch.save({"w": nn.Parameter(torch.ones(2)), "b": nn.Buffer(torch.zeros(2))}, tmp_path / "m.pt")
    states = read_state_file(tmp_path / "m.pt").content
    assert isinstance(states, dict)
    assert [type(tensor) for tensor in states.values()] == [Tensor, Tensor]


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "m.pt")
    with (
        zipfile.ZipFile(tmp_path / "m.pt") as sound,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for record in sound.infolist():
            bomb.writestr(record.filename, sound.read(record))
        bomb.writestr("m/data/1", b"\0" * 10**7)
    with pytest.raises(CorruptFileError, match=r"(?s)compressed archive.*1000\d+ bytes in a file of"):
        read_state_file(tmp_path / "bomb.pt")


def test_a_torchscript_program_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "m.pt"))
    with pytest.raises(InputError, match="TorchScript program"):
        read_state_file(tmp_path / "m.pt")


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n")
    with pytest.raises(CorruptFileError, match=r"(?s)pointer of Git LFS.*git lfs pull"):
        read_state_file(tmp_path / "m.pt")


def test_more_tensors_than_any_architecture_has_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({f"layer.{number}": torch.ones(1) for number in range(20)}, tmp_path / "m.pt")
    monkeypatch.setattr("metaprune_cli.models.load.most_keys", lambda: 2)
    with pytest.raises(InputError, match=r"(?s)at most 16 tensors.*20 tensors"):
        load_model(tmp_path / "m.pt")
    with pytest.raises(InputError, match=r"(?s)at most 16 tensors"):
        load_model(tmp_path / "m.pt", arch="cifar:resnet8")


def test_a_complex_weight_is_not_taken_for_a_real_one(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(2, 2, dtype=torch.complex64), "bias": torch.ones(2)}, tmp_path / "m.pt")
    with pytest.raises(InputError, match="1 mismatched: weight"):
        load_model(tmp_path / "m.pt", arch="torch.nn:Linear", arch_args={"in_features": 2, "out_features": 2})
