"""``metaprune inspect`` of a neuron graph: families, what they would save, and the drawing; and of a model."""

from __future__ import annotations

from pathlib import Path

from cli_calling import call, run

from metaprune_cli.artifacts import read_document
from metaprune_cli.console.figures import count, share
from metaprune_cli.reports.png import is_png

GRAPH = "graphs/train/resnet8-0.graph.safetensors"


def test_every_family_has_its_figures(work: Path) -> None:
    graph = run("inspect", GRAPH, "--json").json["graph"]
    text = run("inspect", GRAPH).out
    for family in graph["families"]:
        row = next(line for line in text.splitlines() if line.split()[:1] == [family["name"]])
        figures = (family["kind"], str(family["units"]), str(family["removable"]), str(len(family["parameters"])))
        assert tuple(row.split()[1:5]) == figures
        assert count(family["params_saved"]) in row
        assert share(family["macs_share"]) in row
        assert (family["locked"] or "") in row
    assert {family["kind"] for family in graph["families"]} == {"channels"}
    assert f"{sum(family['removable'] for family in graph['families'])} of them can go" in text


def test_what_is_kept_as_it_is_says_why(work: Path) -> None:
    graph = run("inspect", GRAPH, "--json").json["graph"]
    lines = run("inspect", GRAPH).out.splitlines()
    assert graph["verbatim"]
    for name, reason in graph["verbatim"].items():
        assert any(line.split() == [name, *reason.split()] for line in lines)


def test_a_graph_is_drawn(work: Path, tmp_path: Path) -> None:
    target = tmp_path / "graph.svg"
    shown = run("inspect", GRAPH, "--draw", target, "--json").json
    assert shown["drawing"] == str(target)
    picture = target.read_text()
    drawn = [family for family in shown["graph"]["families"] if family["name"] != "constant"]
    assert all(f"family {family['name']}: {family['units']} unit" in picture for family in drawn)
    assert str(target) in run("inspect", GRAPH, "--draw", target).out


def test_a_pruned_model_is_drawn_with_its_widths_before_and_after(work: Path, model: Path, tmp_path: Path) -> None:
    small, target = tmp_path / "small.safetensors", tmp_path / "layers.png"
    run("prune", model, "-s", "2", "-o", small, "-q")
    whole = {row["name"]: row for row in run("inspect", model, "--draw", target, "--json").json["layers"]}
    shown = run("inspect", small, "--draw", target, "--json").json
    assert shown["drawing"] == str(target)
    assert {row["name"]: row["before"] for row in shown["layers"]} == {n: row["width"] for n, row in whole.items()}
    assert all(row["before"] is None for row in whole.values())
    for family in read_document(small)["pruning"]["families"]:
        assert family["name"] not in whole or family["after"] == next(
            row["width"] for row in shown["layers"] if row["name"] == family["name"]
        )
    assert sum(row["macs"] for row in shown["layers"]) == read_document(small)["pruning"]["macs"]["after"]
    assert is_png(target)
    assert "Channels before" in run("inspect", small, "--draw", target).out


def test_other_artifacts_cannot_be_drawn(work: Path, tmp_path: Path) -> None:
    ran = call("inspect", "metanet.safetensors", "--draw", tmp_path / "metanet.png")
    assert ran.code == 2
    assert "Only models and neuron graphs can be drawn" in ran.err
    assert "kind metanetwork" in ran.err
    assert run("inspect", "metanet.safetensors", "--json").json["drawing"] is None
