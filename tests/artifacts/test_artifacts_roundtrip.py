"""What is written is what is read; equal contents are equal bytes; nothing else is ever replaced."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from metaprune_cli.artifacts import (
    FORMAT_VERSION,
    file_sha256,
    is_artifact,
    join_aliases,
    load_tensors,
    provenance,
    read_artifact,
    read_document,
    split_aliases,
    write_artifact,
)
from metaprune_cli.artifacts.format import BLANK_DIGEST, METADATA_KEY, dump_document
from metaprune_cli.artifacts.strict_json import MAX_BRACKETS
from metaprune_cli.artifacts.tensors import CHUNK_BYTES, DTYPES, MAX_HEADER_BYTES
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


def test_half_a_surrogate_pair_is_written_out(tmp_path: Path) -> None:
    """Names of files that are not UTF-8 have them."""
    document = {"lineage": [{"command": "prune", "input": "a\udcff\\.pt"}]}
    write_artifact(tmp_path / "a.safetensors", "model", tensors(), document, {"\udcff": "0" * 64})
    found = read_artifact(tmp_path / "a.safetensors").document
    assert (found["lineage"][0]["input"], found["inputs"]) == (r"a\udcff\.pt", {r"\udcff": "0" * 64})


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


def test_bytes_are_those_of_safetensors(tmp_path: Path) -> None:
    """Every type, names that JSON escapes, shapes without elements, and what is not contiguous."""
    stored = {f"of {dtype}": torch.arange(6).to(dtype).reshape(2, 3) for dtype in DTYPES.values()}
    named = {name: torch.ones(1) for name in ('"\\\n\x01\x7f/', "größe", "\u2028", "😀", "", "__metadata")}
    odd = {"none": torch.zeros(2, 0), "scalar": torch.tensor(True), "t": torch.arange(6.0).reshape(2, 3).t()}
    conjugate = {"conjugate": torch.tensor([1 + 2j], dtype=torch.complex64).conj()}
    every = {**stored, **named, **odd, **conjugate}
    for padding in range(8):
        document = {**DOCUMENT, "padding": "b" * padding}
        digest = write_artifact(tmp_path / "a", "model", every, document)
        text = dump_document({**read_document(tmp_path / "a"), "digest": BLANK_DIGEST})
        plain = {name: tensor.contiguous().resolve_conj() for name, tensor in every.items()}
        blank = safetensors.torch.save(plain, {METADATA_KEY: text})
        assert hashlib.sha256(blank).hexdigest() == digest
        assert (tmp_path / "a").read_bytes() == blank.replace(BLANK_DIGEST.encode(), digest.encode(), 1)
        read = read_artifact(tmp_path / "a").tensors
        assert all(torch.equal(read[name].view(torch.uint8), plain[name].view(torch.uint8)) for name in stored)


def test_tensors_larger_than_a_piece_and_their_order_in_memory(tmp_path: Path) -> None:
    large = torch.arange(CHUNK_BYTES // 4 * 2 + 3, dtype=torch.int32)
    state = {"z": large, "transposed": large[:-3].reshape(2, -1).t(), "few": torch.zeros(3)}
    write_artifact(tmp_path / "a", "model", state, {})
    torch.testing.assert_close(read_artifact(tmp_path / "a").tensors, state, rtol=0, atol=0)
    assert list(read_artifact(tmp_path / "a").tensors) == ["few", "transposed", "z"]
    safetensors.torch.save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "plain")
    torch.testing.assert_close(load_tensors(tmp_path / "plain"), state, rtol=0, atol=0)


def test_values_that_nobody_wants_are_checked_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_artifact(path, "model", tensors(), DOCUMENT)
    read = read_artifact(path, wanted=lambda document, name: document["kind"] == "model" and name == "count").tensors
    assert {name for name, tensor in read.items() if not tensor.is_meta} == {"count"}
    assert {n: (t.dtype, t.shape) for n, t in read.items()} == {n: (t.dtype, t.shape) for n, t in tensors().items()}
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(CorruptFileError, match="changed or damaged"):
        read_artifact(path, wanted=lambda document, name: False)


def test_what_is_checked_is_what_is_returned(tmp_path: Path) -> None:
    """A file that is exchanged while it is read: every byte is read once, so a mixture has no right digest."""
    path = tmp_path / "a"
    size = CHUNK_BYTES // 4
    write_artifact(path, "model", {"a": torch.zeros(size), "b": torch.zeros(size)}, {})

    def wanted(document: Mapping[str, object], name: str) -> bool:
        with path.open("r+b") as file:  # once the header is read
            file.seek(-4, os.SEEK_END)
            file.write(b"\x00\x00\x80\x3f")
        return True

    with pytest.raises(CorruptFileError, match="changed or damaged"):
        read_artifact(path, wanted=wanted)

    def cut(document: Mapping[str, object], name: str) -> bool:
        os.truncate(path, path.stat().st_size - 1)
        return True

    write_artifact(path, "model", {"a": torch.zeros(size), "b": torch.zeros(size)}, {})
    with pytest.raises(CorruptFileError, match="cut short"):
        read_artifact(path, wanted=cut)


def test_a_file_that_does_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_artifact(tmp_path / "a", "model", tensors(), {})

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: Out of memory")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(InputError, match="does not fit in memory"):
        read_artifact(tmp_path / "a")


@pytest.mark.parametrize(
    ("state", "document", "match"),
    [
        ({"w": torch.zeros(2, dtype=torch.complex128)}, {}, "w: torch.complex128"),
        ({"w\udcff": torch.zeros(1)}, {}, "surrogates not allowed"),
        ({}, {"text": "x" * MAX_HEADER_BYTES}, "a header of .* bytes"),
        ({}, {"text": "[" * MAX_BRACKETS}, "brackets; 1,048,576 are read"),
    ],
    ids=["type", "name", "length", "brackets"],
)
def test_what_could_not_be_read_is_not_written(
    tmp_path: Path, state: dict[str, Tensor], document: dict[str, str], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        write_artifact(tmp_path / "a", "model", state, document)
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(InputError, match="A different file already exists"):
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


@pytest.mark.parametrize(("version", "step"), [(0, "create the file again"), (2, "upgrade metaprune"), ("1", "create")])
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
    dead, name = int(done.stdout), "x.safetensors"
    gone = [tmp_path / f".{name}.{dead}.tmp", tmp_path / f".{name}.{dead}-{dead}.tmp"]
    ours = tmp_path / f".{name}.{os.getpid()}-{threading.get_native_id()}.tmp"  # of a process that had our number
    theirs = [tmp_path / f".{name}.{os.getppid()}-7.tmp", tmp_path / f".{name}.notes.tmp", tmp_path / f".{name}.tmp"]
    for leftover in (*gone, ours, *theirs):
        leftover.write_bytes(b"half")
    write_artifact(tmp_path / name, "model", {"a": torch.zeros(1)}, {})
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / name, *theirs])


def test_a_link_in_the_place_of_the_sibling_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("text")
    (tmp_path / f".a.{os.getpid()}-{threading.get_native_id()}.tmp").symlink_to(precious)
    write_artifact(tmp_path / "a", "model", {}, {})
    assert precious.read_text() == "text"
    assert read_artifact(tmp_path / "a").kind == "model"


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    """Whoever ends last has written it, and it is whole at any time."""
    states = [{"a": torch.full((100_000,), float(n))} for n in range(4)]

    def write(state: dict[str, Tensor]) -> None:
        for _ in range(10):
            write_artifact(tmp_path / "a", "model", state, {})
            assert read_artifact(tmp_path / "a").tensors["a"].unique().numel() == 1

    with ThreadPoolExecutor(len(states)) as threads:
        list(threads.map(write, states))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_names_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    for name in ("b" * 255, "ß" * 127):
        write_artifact(tmp_path / name, "model", {}, {})
        write_artifact(tmp_path / name, "model", {}, {})
    assert len(list(tmp_path.iterdir())) == 2
