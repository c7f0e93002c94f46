"""``prune --search``: shares of the layers that are searched for, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calling import call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.workflows import searching


def test_a_search_is_no_worse_and_says_that_it_was(work: Path, model: Path, tmp_path: Path) -> None:
    plain, found, again = (tmp_path / f"{name}.safetensors" for name in ("plain", "found", "again"))
    options = ["-s", "2", "--repair", "least-squares", "--repair-images", "64", "--max-ratio", "0.9"]
    run("prune", model, *options, "-o", plain)
    done = run("prune", model, *options, "--search", "6", "-o", found)
    assert "fitness" in done.err
    run("prune", model, *options, "--search", "6", "-o", again)
    assert found.read_bytes() == again.read_bytes()
    document = read_document(found)
    assert document["lineage"][-1]["search"] == 6
    assert "search" not in read_document(plain)["lineage"][-1]
    assert document["pruning"]["speedup"] >= 2
    shown = run("eval", plain, found, "--base", model, "--json").json["models"]
    assert {row["arm"] for row in shown} == {"plain", "searched"}


def test_models_of_a_structure_are_searched_for_together(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # never one of the plans that need no search: those are each model's own
    monkeypatch.setattr(searching, "choose", lambda leaders: (leaders[-1], (1.0, 0.0)))
    options = ["-s", "2", "--repair", "least-squares", "--repair-images", "64", "--search", "4"]
    run("prune", "zoo/train", *options, "--together", "-o", tmp_path)
    documents = [read_document(path) for path in sorted(tmp_path.rglob("*.safetensors"))]
    left = [[family["after"] for family in document["pruning"]["families"]] for document in documents]
    assert len(left) > 1
    assert all(row == left[0] for row in left)
    for document in documents:
        assert document["lineage"][-1]["together"] == len(documents)
        assert len(document["inputs"]) == 2 + len(documents)  # the model, the images, and all of the group


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["-s", "2", "--together", "--search", "0"], "--together only has an effect with a search"),
        (["-s", "2", "--scope", "family"], "there is nothing to search for"),
        (["--target", "drop=1"], "cannot be searched for with a target of drop"),
    ],
)
def test_what_cannot_be_searched_for_is_said_at_once(
    options: list[str], text: str, work: Path, model: Path, tmp_path: Path
) -> None:
    ran = call("prune", model, "--search", "3", *options, "-o", tmp_path / "small.safetensors")
    assert ran.code == 2
    assert text in " ".join(ran.err.replace("│", " ").split())
    assert not list(tmp_path.iterdir())
