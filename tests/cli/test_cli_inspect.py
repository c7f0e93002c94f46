"""``metaprune inspect`` of a neuron graph: families, what they would save, and the drawing."""

from __future__ import annotations

from pathlib import Path

from cli_calling import call, run

from metaprune_cli.console.figures import count, share

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


def test_a_model_is_not_drawn(work: Path, model: Path, tmp_path: Path) -> None:
    ran = call("inspect", model, "--draw", tmp_path / "model.svg")
    assert ran.code == 2
    assert "Only a neuron graph can be drawn" in ran.err
    assert "kind model" in ran.err
    assert ran.out == ""
    assert run("inspect", model, "--json").json["drawing"] is None
