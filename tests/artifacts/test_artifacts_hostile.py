"""Files that somebody made on purpose, with a right digest: refused as corrupt, soon, before anything is allocated."""

from __future__ import annotations

import hashlib
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from metaprune_cli.artifacts import format as layout
from metaprune_cli.artifacts import is_artifact, load_tensors, read_artifact, read_document
from metaprune_cli.artifacts.strict_json import MAX_BRACKETS, MAX_DEPTH, parse_json
from metaprune_cli.artifacts.tensors import MAX_HEADER_BYTES
from metaprune_cli.errors import CorruptFileError
from metaprune_cli.models.state_files import read_state_file

BODY = torch.arange(4.0).numpy().tobytes()
SECONDS = 20  # far more than a refusal takes on a busy machine, far less than what is refused would


def document(**further: Any) -> str:
    own = {"kind": "model", "format_version": layout.FORMAT_VERSION, "digest": layout.BLANK_DIGEST, "inputs": {}}
    return layout.dump_document({**own, **further})


def entry(shape: Any = (4,), offsets: Any = (0, 16), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def sealed(path: Path, header: str | bytes, body: bytes = BODY, length: int | None = None) -> Path:
    """Write a file whose digest is that of its bytes, whatever they are."""
    text = header if isinstance(header, bytes) else header.encode("utf-8")
    blank = struct.pack("<Q", len(text) if length is None else length) + text
    digest = hashlib.sha256(blank + body).hexdigest()
    path.write_bytes(layout.replace_digest(blank, layout.BLANK_DIGEST, digest) + body)
    return path


def header(tensors: dict[str, Any] | str | None = None, text: str | None = None) -> str:
    """A header around tensors (or the JSON of them) and a document."""
    metadata = json.dumps({layout.METADATA_KEY: document() if text is None else text}, ensure_ascii=False)
    said = tensors if isinstance(tensors, str) else json.dumps(tensors or {"a": entry()}, ensure_ascii=False)[1:-1]
    return f'{{"__metadata__":{metadata},{said}}}'


def assert_refused(path: Path, match: str) -> None:
    start = time.monotonic()
    with pytest.raises(CorruptFileError, match=match):
        read_artifact(path)
    assert time.monotonic() - start < SECONDS
    is_artifact(path)


def test_the_maker_of_these_files_makes_sound_ones(tmp_path: Path) -> None:
    path = sealed(tmp_path / "a", header())
    torch.testing.assert_close(read_artifact(path).tensors, {"a": torch.arange(4.0)})
    assert read_document(path)["kind"] == "model"


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1 << 40, 0, 7], ids=str)
def test_the_length_of_a_header(tmp_path: Path, length: int) -> None:
    assert_refused(sealed(tmp_path / "a", header(), length=length), "damaged")


def test_a_header_that_is_too_long_is_not_parsed(tmp_path: Path) -> None:
    assert_refused(sealed(tmp_path / "a", header() + " " * MAX_HEADER_BYTES), "a header of .* bytes; 16,777,216 are")
    million = ",".join(f'"{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(1_000_000))
    assert_refused(sealed(tmp_path / "a", header(million), b""), "a header of .* bytes")


TENSORS = {
    "of an unknown type": ({"a": entry(dtype="F128")}, "unknown type"),
    "of a type that is no text": ({"a": entry(dtype=["F32"])}, "unknown type"),
    "with too few bytes": ({"a": entry([5])}, "16 bytes, which are not those of its shape"),
    "larger than the file": ({"a": entry([1 << 40], [0, 1 << 42])}, "where there are 16"),
    "of 2^64 elements": ({"a": entry([1 << 32, 1 << 32], [0, 16])}, "impossible shape"),
    "of 2^63 elements in none": ({"a": entry([0, 1 << 62, 4], [0, 0]), "b": entry()}, "impossible shape"),
    "of a shape of 10^30": ({"a": entry([10**30])}, "impossible shape"),
    "of a negative shape": ({"a": entry([-2, -2])}, "impossible shape"),
    "of a shape of truths": ({"a": entry([True, 4])}, "impossible shape"),
    "of a shape of fractions": ({"a": entry([4.0])}, "impossible shape"),
    "of a shape that is text": ({"a": entry("4")}, "impossible shape"),
    "of ten thousand dimensions": ({"a": entry([1] * 10_000 + [4])}, "impossible shape"),
    "at a negative place": ({"a": entry(offsets=[-16, 0])}, "impossible place"),
    "that ends before it begins": ({"a": entry(offsets=[16, 0])}, "not those of its shape"),
    "at three places": ({"a": entry(offsets=[0, 8, 16])}, "impossible place"),
    "at no place": ({"a": {"dtype": "F32", "shape": [4]}}, "no type, shape and place"),
    "that is a number": ({"a": 4}, "no type, shape and place"),
    "with more keys": ({"a": entry() | {"run": "me"}}, "no type, shape and place"),
    "over another": ({"a": entry([2], [0, 8]), "b": entry([3], [4, 16])}, "no tensor, or to two"),
    "twice": ({"a": entry(), "b": entry()}, "no tensor, or to two"),
    "behind a hole": ({"a": entry([1], [0, 4]), "b": entry([2], [8, 16])}, "no tensor, or to two"),
    "before a tail": ({"a": entry([3], [0, 12])}, "tensors of 12 bytes where there are 16"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor(tmp_path: Path, case: str) -> None:
    tensors, match = TENSORS[case]
    assert_refused(sealed(tmp_path / "a", header(tensors)), match)
    with pytest.raises(ValueError, match=match):
        load_tensors(sealed(tmp_path / "a", header(tensors)))


TEXTS = {
    "a key twice": (document()[:-1] + ',"kind":"graph"}', "the key 'kind' twice"),
    "NaN": (document(loss=0)[:-1] + ',"x":NaN}', "NaN, which is not JSON"),
    "infinity": (document()[:-1] + ',"x":-Infinity}', "-Infinity, which is not JSON"),
    "a number that becomes infinite": (document()[:-1] + ',"x":1e999}', "the number 1e999"),
    "a number of 5,000 digits": (document()[:-1] + f',"x":{"9" * 5000}}}', "digits"),
    "half of a pair": (document()[:-1] + r',"x":"\ud800"}', "surrogates not allowed"),
    "half of a pair in a key": (document()[:-1] + r',"\udfff":0}', "surrogates not allowed"),
    "depth that Python can parse": (document()[:-1] + f',"x":{"[" * 500}{"]" * 500}}}', "nested more than 100"),
    "depth that it cannot": (document()[:-1] + f',"x":{"[" * 100_000}{"]" * 100_000}}}', "nested more than 100"),
    "millions of lists": (document()[:-1] + f',"x":[{"[]," * MAX_BRACKETS}0]}}', "brackets; 1,048,576 are read"),
    "no object": ("[1]", "not a JSON object"),
    "no JSON": ("{", "Expecting"),
    "nothing": ("", "Expecting"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_document(tmp_path: Path, case: str) -> None:
    text, match = TEXTS[case]
    path = sealed(tmp_path / "a", header(text=text))
    assert_refused(path, match)
    with pytest.raises(CorruptFileError, match=match):
        read_document(path)


HEADERS = {
    "a name twice": (header('"a":[],' + json.dumps({"a": entry()})[1:-1]), "the key 'a' twice"),
    "metadata twice": (header('"__metadata__":{}'), "the key '__metadata__' twice"),
    "depth": (header(f'"a":{"[" * 100_000}{"]" * 100_000}'), "nested more than 100"),
    "NaN": (header('"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}'), "NaN"),
    "half of a pair": (header(r'"\ud800":' + json.dumps(entry())), "surrogates not allowed"),
    "half of a pair, encoded": (header().encode().replace(b'"a"', b'"\xed\xa0\x80"'), "codec can't decode"),
    "no UTF-8": (header().encode().replace(b'"a"', b'"\xff"'), "codec can't decode"),
    "UTF-16": (header().encode("utf-16"), "codec can't decode"),
    "a list": ("[]", "not a JSON object"),
    "metadata that are a list": ('{"__metadata__":[]}', "not a JSON object"),
    "a document that is no text": ('{"__metadata__":{"metaprune":{}}}', "no document"),
    "no document": ('{"__metadata__":{"format":"pt"}}', "no document"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header(tmp_path: Path, case: str) -> None:
    text, match = HEADERS[case]
    assert_refused(sealed(tmp_path / "a", text), match)


def test_a_million_small_tensors(tmp_path: Path) -> None:
    few = ",".join(f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(250_000))
    assert_refused(sealed(tmp_path / "a", header(few), b""), "brackets; 1,048,576 are read")


def test_somebody_elses_safetensors_files_are_checked_alike(tmp_path: Path) -> None:
    for said in ('"a":[],"a":[]', json.dumps({"a": entry([1 << 40], [0, 1 << 42])})[1:-1]):
        path = sealed(tmp_path / "a.safetensors", f"{{{said}}}")
        with pytest.raises(CorruptFileError, match="neither a valid safetensors file"):
            read_state_file(path)


def test_depth_is_counted_outside_of_strings() -> None:
    brackets = "[" * (MAX_DEPTH + 1)
    assert parse_json(json.dumps({"a": brackets, "b": '\\"' + brackets})) == {"a": brackets, "b": '\\"' + brackets}
    deepest = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deepest)) == deepest
    assert parse_json('["\\ud83d\\ude00", 1e-5, -0.0, null]') == ["\N{GRINNING FACE}", 1e-5, 0.0, None]


@pytest.mark.parametrize("text", ['"' + '\\"' * 4_000_000, '"' * 4_000_001, '"\\'], ids=["escapes", "quotes", "cut"])
def test_strings_that_do_not_end_take_no_longer(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"Unterminated|Extra data|Invalid"):
        parse_json(text)
    assert time.monotonic() - start < SECONDS
