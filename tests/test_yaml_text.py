"""YAML that anybody may have written: each kind of disproportion is refused at once, and in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from metaprune_cli.errors import InputError
from metaprune_cli.yaml_text import MOST_BYTES, read_yaml

LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}], y{n}: 1}}\n" for n in range(1, 10)
)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, "more than 20000 values, aliases written out"),
        (MERGES, "more than 20000 values, aliases written out"),
        ("a: &a [*a]", "an alias inside what it stands for"),
        ("[" * 100_000, "more than 40 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(300)), "more than 40 levels"),
        ("- " * 5000, "more than 40 levels"),
        ("[" + "1," * 60_000 + "]", "more than 20000 values"),
        (f"a: {'9' * 5000}", "a number of 5000 characters"),
        (f"a: 0x{'f' * 5000}", "a number of 5002 characters"),
        ("a: 1\nb: 2\na: 3", "the key 'a' a second time"),
        ("a: !!python/object/apply:os.system ['true']", "python/object"),
        ("a: !!int x", "a value that its tag does not allow"),
        ("a: !!timestamp x", "a value that its tag does not allow"),
        ("a: 2024-99-99", "a value that its tag does not allow"),
        ('a: "\\ud800"', "half of a surrogate pair"),
        ("a: \0", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("? [a]\n: 1", "not valid YAML"),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_out_of_proportion_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(
        InputError,
        match=rf"(?s)The settings file is not valid YAML.*{problem}" if problem != "not valid YAML" else problem,
    ):
        read_yaml(path, "The settings file")


def test_a_large_file_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match=rf"(?s)too large.*at most {MOST_BYTES} bytes.*{2**40} bytes"):
        read_yaml(path, "The settings file")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "latin1"])
def test_another_encoding_is_named(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("a: ä", encoding=encoding)
    with pytest.raises(InputError, match="is not text in UTF-8"):
        read_yaml(path, "The settings file")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "params.yaml")
    with pytest.raises(InputError, match=r"(?s)The settings file cannot be read.*is a pipe"):
        read_yaml(tmp_path / "params.yaml", "The settings file")


def test_anchors_merges_and_byte_order_marks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("\ufeffa: &a {x: 1}\nb: {<<: *a, y: 2}\nc: {<<: [*a, *a], x: 3}\n", encoding="utf-8")
    assert read_yaml(path, "The settings file") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 3}}
