"""What is written is what is read; equal contents are equal bytes; nothing else is ever replaced."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch
from torch import Tensor

from metaprune_cli.artifacts import (
    FORMAT_VERSION,
    file_sha256,
    is_artifact,
    join_aliases,
    provenance,
    read_artifact,
    read_document,
    split_aliases,
    write_artifact,
)
from metaprune_cli.errors import CorruptFileError, InputError

DOCUMENT = {"architecture": {"name": "mlp", "args": {"größe": 0.1}}, "metrics": {"top1": 1e-5}}


def tensors() -> dict[str, Tensor]:
    weight = torch.arange(12.0).reshape(3, 4)
    return {
        "weight": weight,
        "transposed": weight.t(),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros(0, 3),
    }


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    digest = write_artifact(path, "model", tensors(), DOCUMENT, {"input.pt": "ab"})
    artifact = read_artifact(path, "model")
    torch.testing.assert_close(artifact.tensors, tensors(), rtol=0, atol=0)
    assert (artifact.kind, artifact.version, artifact.digest) == ("model", FORMAT_VERSION, digest)
    assert artifact.document["inputs"] == {"input.pt": "ab"}
    assert {key: artifact.document[key] for key in DOCUMENT} == DOCUMENT
    assert read_document(path) == artifact.document
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208 - hidden files too


def test_half_a_surrogate_pair_is_written_and_read(tmp_path: Path) -> None:
    """Names of files that are not UTF-8 have them."""
    document = {"lineage": [{"input": "a\udcff\\\ud800.pt"}]}
    write_artifact(tmp_path / "a.safetensors", "model", tensors(), document, {"\udcff": "0"})
    found = read_artifact(tmp_path / "a.safetensors").document
    assert (found["lineage"], found["inputs"]) == (document["lineage"], {"\udcff": "0"})


def test_tensors_lie_where_an_allocator_puts_them(tmp_path: Path) -> None:
    odd = {f"t{size}": torch.randn(size) for size in range(1, 30, 2)}
    write_artifact(tmp_path / "a", "model", odd, {}, {})
    addresses = {tensor.data_ptr() for tensor in read_artifact(tmp_path / "a").tensors.values()}
    assert len(addresses) == len(odd)
    assert all(address % 64 == 0 for address in addresses)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_artifact(tmp_path / name, "graph", dict(reversed(tensors().items())), DOCUMENT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert file_sha256(tmp_path / "a") == hashlib.sha256((tmp_path / "b").read_bytes()).hexdigest()


def test_anyone_can_read_it(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "model", tensors(), DOCUMENT)
    with safetensors.safe_open(tmp_path / "a", framework="pt") as file:
        assert set(file.keys()) == set(tensors())
        assert set(file.metadata()) == {"metaprune"}


def test_an_artifact_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "model", tensors(), {})
    write_artifact(tmp_path / "a", "model", {}, {})
    assert read_artifact(tmp_path / "a").tensors == {}


@pytest.mark.parametrize("content", [b"", b"notes", b"{}"], ids=["empty", "text", "json"])
def test_another_file_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match="something else at this place"):
        write_artifact(tmp_path / "a", "model", {}, {})
    assert (tmp_path / "a").read_bytes() == content


def test_another_kind_and_a_folder_are_never_replaced(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "graph", {}, {})
    with pytest.raises(InputError, match="got: graph"):
        write_artifact(tmp_path / "a", "model", {}, {})
    with pytest.raises(InputError, match="got: a folder"):
        write_artifact(tmp_path, "model", {}, {})


def test_a_kind_is_asked_for(tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "graph", {}, {})
    with pytest.raises(InputError, match=r"(?s)expected: kind model.*got: kind graph"):
        read_artifact(tmp_path / "a", "model")
    with pytest.raises(ValueError, match="unknown kind"):
        write_artifact(tmp_path / "b", "poem", {}, {})


def test_nan_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_artifact(tmp_path / "a", "model", {}, {"loss": math.nan})
    assert not list(tmp_path.iterdir())


def test_a_missing_file(tmp_path: Path) -> None:
    for function in (read_artifact, read_document, file_sha256):
        with pytest.raises(InputError, match="cannot be read"):
            function(tmp_path / "none")
    assert not is_artifact(tmp_path / "none")
    assert not is_artifact(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="could not be written"):
        write_artifact(tmp_path / "a", "model", {}, {})
    tmp_path.chmod(0o700)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"):
        write_artifact(tmp_path / "file" / "a", "model", {}, {})


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write fails half-way, in a process of its own."""
    write_artifact(tmp_path / "a", "model", {}, {})
    before = (tmp_path / "a").read_bytes()

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    script = (
        "import sys, torch; from metaprune_cli.artifacts import write_artifact\n"
        "write_artifact(sys.argv[1], 'model', {'w': torch.zeros(10_000)}, {})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a")],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "InputError: The file could not be written; nothing was left behind." in done.stderr
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


@pytest.mark.parametrize(("version", "step"), [(0, "make the file again"), (2, "upgrade metaprune"), ("1", "make")])
def test_other_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: object, step: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("metaprune_cli.artifacts.format.FORMAT_VERSION", version)
        write_artifact(tmp_path / "a", "model", tensors(), {})
    for function in (read_artifact, read_document):
        with pytest.raises(CorruptFileError, match=rf"(?s)expected: format version 1.*next step: {step}"):
            function(tmp_path / "a")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "zip.pt")
    torch.save({}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    for name, text in (("zip.pt", "zip archive"), ("legacy.pt", "pickle, which can run code")):
        assert not is_artifact(tmp_path / name)
        with pytest.raises(CorruptFileError, match=text):
            read_artifact(tmp_path / name)


@pytest.mark.parametrize("padding", range(0, 256, 8))
def test_no_length_of_a_header_looks_like_a_pickle(padding: int, tmp_path: Path) -> None:
    write_artifact(tmp_path / "a", "model", {}, {"text": "b" * padding})
    assert read_artifact(tmp_path / "a").document["text"] == "b" * padding


def test_shared_tensors_are_stored_once() -> None:
    weight = torch.randn(3, 2)
    state = {"a": weight, "b": weight, "view": weight[:2], "copy": weight.clone()}
    kept, aliases = split_aliases(state)
    assert list(kept) == ["a", "view", "copy"]
    assert aliases == {"b": "a"}
    assert join_aliases(kept, aliases) == state


def test_provenance_says_nothing_that_changes() -> None:
    first, second = (provenance("prune", {"speedup": 2.0}, seed=1) for _ in range(2))
    assert first == second
    assert first["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = tmp_path / f".x.safetensors.{int(done.stdout)}.tmp"
    alive = tmp_path / f".x.safetensors.{os.getppid()}.tmp"
    for leftover in (gone, alive):
        leftover.write_bytes(b"half")
    write_artifact(tmp_path / "x.safetensors", "model", {"a": torch.zeros(1)}, {})
    assert not gone.exists()
    assert alive.exists()
