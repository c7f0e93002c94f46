"""``metaprune pruning-net``: its file, its start, going on after an interruption, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from cli_calling import call, run

from metaprune_cli.artifacts import read_artifact, read_document, write_artifact
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint

NET = ("pruning-net", "--epochs", "2")
QUICK = ("--population", 4, "--iterations", 1, "--leaders", 1, "--repair-images", 32)
ARCH = ("--arch", "cifar:resnet8", "--arch-arg", "width=0.25")  # what it classifies follows from the data


def interrupted(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    real = Checkpoint.save

    def save_and_stop(self: Checkpoint, state: TrainState) -> None:
        real(self, state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert call(*arguments).code == 130


@pytest.mark.parametrize("more", [(), ("--sandwich", "--generator", "factored")], ids=["plain", "sandwich"])
def test_resumed_equals_uninterrupted(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    first = run(*NET, model, *more, "-o", whole, "--json").json["pruning_nets"][0]
    interrupted(monkeypatch, *NET, model, *more, "-o", broken)
    assert not broken.exists()
    run(*NET, model, *more, "-o", broken, "--resume")
    assert broken.read_bytes() == whole.read_bytes()
    again = run(*NET, model, *more, "-o", whole, "--json", "--resume").json["pruning_nets"][0]
    assert again == first | {"epochs": 0}


def test_the_file_says_what_it_is_of(model: Path, tmp_path: Path) -> None:
    net = tmp_path / "net.safetensors"
    found = run(*NET, model, "-o", net, "--max-ratio", "0.5", "--json").json["pruning_nets"][0]
    assert found["route"] == "class"
    assert 2 < found["speedup"] <= 4.5
    assert "val_top1" in found
    artifact = read_artifact(net, "hypernetwork")
    assert [step["command"] for step in artifact.document["lineage"]] == ["zoo", "pruning-net"]
    assert len(artifact.document["history"]) == 2
    shown = run("inspect", net).out
    assert "hypernetwork" in shown
    assert "Numbers that may stay" in shown
    assert run("list", "pruningnets", "--folder", tmp_path).code == 0


def test_an_architecture_starts_from_scratch(work: Path, tmp_path: Path) -> None:
    nets = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for net in nets:
        run("pruning-net", *ARCH, "--start", "scratch", "--epochs", "1", "--sampling", "uniform", "-o", net)
    assert nets[0].read_bytes() == nets[1].read_bytes()
    order = read_artifact(nets[0]).tensors["order/0"]
    assert torch.equal(order, order.sort(1).values)


def test_a_pruned_model_has_no_start_from_scratch(model: Path, tmp_path: Path) -> None:
    small, net = tmp_path / "small.safetensors", tmp_path / "net.safetensors"
    run("prune", model, "-s", 2, "-o", small)
    for command in (("pruning-net", small, "--start", "scratch"), ("search", small, "-s", 1.3, "--weights", "scratch")):
        refused = call(*command, *(("--population", 2, "--iterations", 1) if command[0] == "search" else ()), "-o", net)
        assert refused.code == 2
        assert "does not have the widths of its architecture" in " ".join(refused.err.replace("│", " ").split())
        assert not net.exists()


def test_several_models_have_one_each(work: Path, tmp_path: Path) -> None:
    found = run("pruning-net", "zoo/train", "--epochs", "1", "-o", tmp_path / "nets", "--json").json["pruning_nets"]
    assert [Path(one["output"]).name for one in found] == [
        f"{Path(one['input']).stem}.pruningnet.safetensors" for one in found
    ]
    assert len(found) > 1


def test_models_get_the_widths_that_one_search_found(work: Path, tmp_path: Path) -> None:
    """Each keeps units of its own, and descends from itself: it is compared with its own base."""
    models, net, found = sorted(Path("zoo/train").iterdir()), tmp_path / "net.safetensors", tmp_path / "found"
    run("pruning-net", models[0], "--epochs", "1", "-o", net)
    rows = run("search", net, "--models", "zoo/train", *QUICK, "-s", 2, "-o", found, "--json").json["models"]
    assert [row["input"] for row in rows] == [str(model) for model in models]
    assert all(row["achieved"] >= 2 for row in rows)
    documents = [read_document(found / f"{model.stem}.searched-2x.safetensors") for model in models]
    if rows[0]["how"] not in ("plain", "uniform", "rescored", "sensitivity"):
        widths = [[family["after"] for family in document["pruning"]["families"]] for document in documents]
        assert widths[0] == widths[1]
    assert documents[1]["lineage"][-1]["method"] == "pruningnet"
    assert {"model", "widths"} <= set(documents[1]["inputs"])
    evaluated = run("eval", found, "--base", "zoo/train", "--json").json["models"]
    assert {row["arm"] for row in evaluated} == {"plain", "pruningnet"}
    assert {row["origin"] for row in evaluated} == {model.stem for model in models}
    assert [row["speedup"] >= 2 for row in evaluated if row["step"] == "pruned"] == [True] * len(models)


@pytest.mark.parametrize("repair", ["none", "least-squares"])
def test_statistics_from_before_its_training_have_no_say(model: Path, tmp_path: Path, repair: str) -> None:
    """Its weights changed since; a search measures them for the whole widths, as for all others."""
    net, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    run(*NET, model, "-o", net)
    artifact = read_artifact(net)
    shifted = {name: tensor * 100 + 5 if "running" in name else tensor for name, tensor in artifact.tensors.items()}
    assert any("running" in name for name in shifted)
    write_artifact(other, artifact.kind, shifted, artifact.document, {})
    for weights in ("model", "inherited"):
        found = [
            run("search", file, *QUICK, "-s", 2, "--repair", repair, "--weights", weights, "-o", out, "--json")
            for file, out in ((net, tmp_path / "a.safetensors"), (other, tmp_path / "b.safetensors"))
        ]
        (first,), (second,) = (one.json["models"] for one in found)
        assert second["fitness"] == first["fitness"]
        assert second["baselines"] == first["baselines"]
        entries = [read_artifact(tmp_path / f"{name}.safetensors").tensors for name in "ab"]
        assert all(torch.equal(entries[0][name], tensor) for name, tensor in entries[1].items())


def test_models_that_cannot_get_its_widths(work: Path, model: Path, tmp_path: Path) -> None:
    net, small = tmp_path / "net.safetensors", tmp_path / "small.safetensors"
    run("pruning-net", model, "--epochs", "1", "-o", net)
    run("prune", model, "-s", 2, "-o", small)
    for arguments, text in (
        ((net, "--models", small), "a different structure"),
        ((model, "--models", "zoo/train"), "exactly one network that was searched"),
        ((net, "--models", model, "--weights", "inherited"), "the weights are the models' own"),
    ):
        refused = call("search", *arguments, *QUICK, "-s", 2, "-o", tmp_path / "x")
        assert refused.code == 2
        assert text in " ".join(refused.err.replace("│", " ").split())
        assert not (tmp_path / "x").exists()


BAD = {
    "no model": (("pruning-net", "-o", "{}/x.safetensors"), "no model to make a PruningNet of"),
    "no output": (("pruning-net", *ARCH, "--start", "scratch"), "no model to make a PruningNet of"),
    "nothing trained": (("pruning-net", *ARCH, "-o", "{}/x.safetensors"), "no trained weights to start from"),
    "a form that is none": (("pruning-net", "{model}", "--generator", "huge"), "huge"),
    "no epochs": (("pruning-net", "{model}", "--epochs", "0"), "at least 1"),
    "no speed-up": (("pruning-net", "{model}", "--speedup-max", "1"), "above 1"),
    "no such file": (("pruning-net", "none.safetensors"), "none.safetensors"),
    "a net of a net": (("pruning-net", "metanet.safetensors"), "a different kind"),
    "another file in its place": (("pruning-net", "{model}", "-o", "{model}"), "Nothing was"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_panel(model: Path, tmp_path: Path, case: str) -> None:
    arguments, said = BAD[case]
    before = model.read_bytes()
    ran = call(*(part.format(tmp_path, model=model) for part in arguments))
    assert ran.code == 2, ran.err
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []
    assert model.read_bytes() == before


@pytest.mark.parametrize(
    ("rules", "code", "said"),
    [("[{match: nowhere, ignore: true}]", 2, "nowhere"), ('[{match: "*", ignore: true}]', 3, "may lose any units")],
    ids=["matches nothing", "nothing free"],
)
def test_rules_that_leave_nothing(model: Path, tmp_path: Path, rules: str, code: int, said: str) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(f"data: {{dataset: digits, train_limit: 120, batch_size: 40}}\nprune: {{rules: {rules}}}\n")
    ran = call("pruning-net", model, "--params", params, "-o", tmp_path / "x.safetensors")
    assert ran.code == code, ran.err
    assert said in " ".join(ran.err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == [params]
