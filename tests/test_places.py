"""Paths that lead to nothing that can be read or replaced, told apart without opening anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from metaprune_cli.artifacts import file_sha256, is_artifact, read_document
from metaprune_cli.errors import InputError
from metaprune_cli.models import load_model
from metaprune_cli.places import ROOM_IN_NAMES, check_readable, unreadable, unwritable
from metaprune_cli.workflows.paths import check_targets


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder with one of each kind."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nothing")
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("text")
    (tmp_path / "guarded").write_text("text")
    (tmp_path / "guarded").chmod(0o444)
    return tmp_path


SAID = {
    "pipe": "is a pipe",
    "to-pipe": "is a pipe",
    "socket": "is a socket",
    "folder": "is a folder",
    "/dev/zero": "is a device",
    "loop": "Too many levels of symbolic links",
    "dangling": "is a link to something that does not exist",
    "nul\0": "null character",
    "file/below": "Not a directory|is a file",
}


@pytest.mark.parametrize("name", [*SAID, "missing", "n" * 300])
def test_nothing_is_read_from_it(odd: Path, name: str) -> None:
    said = SAID.get(name, "does not exist|File name too long")
    with pytest.raises(InputError, match=rf"(?s)The file cannot be read.*(?:{said})"):
        check_readable(odd / name)
    assert not is_artifact(odd / name)
    for read in (file_sha256, read_document, load_model):
        with pytest.raises(InputError, match=said):
            read(odd / name)


@pytest.mark.parametrize(
    "name", [*SAID, "guarded", "n" * (256 - ROOM_IN_NAMES), "n" * 300 + "/m.pt", "loop/m.pt", "dangling/m.pt"]
)
def test_nothing_is_written_to_it(odd: Path, name: str) -> None:
    said = SAID.get(name) or "write-protected|too long|Too many levels|link to something"
    with pytest.raises(InputError, match=rf"(?s)Nothing was written.*(?:{said})"):
        check_targets([odd / name], "model")


def test_sound_places(odd: Path) -> None:
    assert unreadable(odd / "file") is None
    assert unwritable(odd / "file") is None
    assert unwritable(odd / "new" / "folder" / ("n" * (255 - ROOM_IN_NAMES))) is None


def test_an_output_that_is_an_input_by_a_link(odd: Path) -> None:
    (odd / "other").symlink_to("file")
    with pytest.raises(InputError, match="other: is an input"):
        check_targets([odd / "other"], "model", inputs=[odd / "file"])
