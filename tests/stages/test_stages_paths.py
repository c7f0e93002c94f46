from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from metaprune_cli.artifacts import write_artifact
from metaprune_cli.errors import InputError
from metaprune_cli.reports.files import check_folder
from metaprune_cli.workflows.paths import check_targets, checkpoint_of, find_sources, plan_targets, replace_file, stem


def artifact(path: Path, kind: str = "model") -> Path:
    write_artifact(path, kind, {"weight": torch.zeros(1)}, {})
    return path


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder of models with a sub-folder, and things in it that are none."""
    folder = tmp_path / "zoo"
    artifact(folder / "a.safetensors")
    artifact(folder / "deep" / "b.safetensors")
    artifact(folder / "c.graph.safetensors", kind="graph")
    artifact(folder / "a.checkpoint.safetensors", kind="checkpoint")
    (folder / "notes.txt").write_text("not a model")
    return folder


def test_a_folder_is_every_artifact_of_the_kind_in_it(zoo: Path) -> None:
    sources = find_sources([zoo], ("model",))
    assert [source.relative for source in sources.files] == [Path("a.safetensors"), Path("deep/b.safetensors")]
    assert sources.many


def test_several_folders_keep_their_names(zoo: Path, tmp_path: Path) -> None:
    artifact(tmp_path / "other" / "a.safetensors")
    sources = find_sources([zoo, tmp_path / "other"], ("model",))
    targets = plan_targets(sources, tmp_path / "out", ("graph",), "graph")
    assert [target.relative_to(tmp_path / "out") for (target,) in targets] == [
        Path("zoo/a.graph.safetensors"),
        Path("zoo/deep/b.graph.safetensors"),
        Path("other/a.graph.safetensors"),
    ]


def test_one_file_goes_beside_itself_or_where_it_is_told(tmp_path: Path) -> None:
    sources = find_sources([artifact(tmp_path / "model.safetensors")], ("model",))
    assert plan_targets(sources, None, ("graph",), "graph") == [[tmp_path / "model.graph.safetensors"]]
    assert plan_targets(sources, tmp_path / "g.safetensors", ("graph",), "graph") == [[tmp_path / "g.safetensors"]]
    assert plan_targets(sources, tmp_path / "new", ("graph",), "graph") == [
        [tmp_path / "new" / "model.graph.safetensors"]
    ]


def test_several_results_of_one_file_go_beside_it(tmp_path: Path) -> None:
    sources = find_sources([artifact(tmp_path / "model.safetensors")], ("model",))
    (targets,) = plan_targets(sources, None, ("pruned-2x", "pruned-2.5x"), "model")
    assert [target.name for target in targets] == ["model.pruned-2x.safetensors", "model.pruned-2.5x.safetensors"]
    with pytest.raises(InputError, match="Several results need a folder"):
        plan_targets(sources, tmp_path / "one.safetensors", ("pruned-2x", "pruned-2.5x"), "model")


def test_a_folder_needs_a_folder(zoo: Path, tmp_path: Path) -> None:
    sources = find_sources([zoo], ("model",))
    with pytest.raises(InputError, match="needs a folder for the output"):
        plan_targets(sources, None, ("pruned-2x",), "model")
    with pytest.raises(InputError, match="Several results need a folder"):
        plan_targets(sources, tmp_path / "one.safetensors", ("pruned-2x",), "model")


def test_all_unusable_inputs_are_named_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        find_sources([tmp_path / "missing.pt", tmp_path / "empty"], ("model", "graph"))
    assert "missing.pt: does not exist" in str(caught.value)
    assert "empty: no artifact of kind model or graph" in str(caught.value)


def test_all_unsafe_outputs_are_named_at_once(tmp_path: Path) -> None:
    graph = artifact(tmp_path / "graph.safetensors", kind="graph")
    text = tmp_path / "text.safetensors"
    text.write_text("mine")
    given = artifact(tmp_path / "given.safetensors")
    new = tmp_path / "new.safetensors"
    with pytest.raises(InputError) as caught:
        check_targets([graph, text, given, new, new], "model", inputs=[given])
    assert str(caught.value).count("exists and is not an artifact of kind model") == 2
    assert str(caught.value).count("is an input, or another input's output too") == 2


def test_an_artifact_of_the_same_kind_may_be_replaced(tmp_path: Path) -> None:
    check_targets([artifact(tmp_path / "old.safetensors")], "model")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.pt", "net"),
        ("net.graph.safetensors", "net"),
        ("net.pruned-2.5x.safetensors", "net.pruned-2.5x"),
        ("net", "net"),
    ],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


def test_the_checkpoint_lies_beside_its_output() -> None:
    assert checkpoint_of(Path("data/metanet.safetensors")) == Path("data/metanet.checkpoint.safetensors")


def test_places_where_nothing_can_be_written_are_named_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("not a folder")
    with pytest.raises(InputError, match=r"notes.txt/new/m.safetensors: .*notes.txt is a file"):
        check_targets([tmp_path / "notes.txt" / "new" / "m.safetensors"], "model")
    monkeypatch.setattr("os.access", lambda *_: False)  # for root, every folder can be written
    with pytest.raises(InputError, match=r"new/m.safetensors: no permission to write in "):
        check_targets([tmp_path / "new" / "m.safetensors"], "model")
    with pytest.raises(InputError, match=r"(?s)report cannot be written.*no permission to write in "):
        check_folder(tmp_path / "report")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_two_that_write_one_file_at_a_time_both_end(tmp_path: Path) -> None:
    target = tmp_path / "same.txt"

    def outer(part: Path) -> None:
        part.write_text("the last")
        replace_file(target, lambda inner: inner.write_text("the first"))
        assert target.read_text() == "the first"

    replace_file(target, outer)
    assert target.read_text() == "the last"
    assert list(tmp_path.iterdir()) == [target]


def test_only_what_was_abandoned_long_ago_is_removed(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    mine, new, other = (tmp_path / f".{name}.{'0' * 31}{n}.part" for n, name in enumerate(("a.txt", "a.txt", "b.txt")))
    user = tmp_path / ".a.txt.notes.part"
    for path in (mine, new, other, user):
        path.write_text("half")
    for path in (mine, other, user):
        os.utime(path, (0, 0))
    replace_file(target, lambda part: part.write_text("whole"))
    assert set(tmp_path.iterdir()) == {target, new, other, user}


def test_a_name_of_full_length_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 125 + ".txt")
    replace_file(target, lambda part: part.write_text("whole"))
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, number: int) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fill(part: Path) -> None:
        part.write_text("ha")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=f"(?s)could not be written.*{os.strerror(number)}.*free space"):
        replace_file(target, fill)
    assert (target.read_text(), list(tmp_path.iterdir())) == ("old", [target])
