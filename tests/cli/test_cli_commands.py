"""The commands in one process: names, lineage, reproducible bytes, resuming, and what errors say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.artifacts import read_artifact, read_document
from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.models import Architecture, build, load_model, save_model
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.made import Checkpoint


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def commands(path: Path) -> list[str]:
    return [step["command"] for step in read_document(path)["lineage"]]


def test_the_zoo_is_split_in_three(work: Path) -> None:
    assert files(work / "zoo") == [
        "heldout/resnet8-3.safetensors",
        "train/resnet8-0.safetensors",
        "train/resnet8-1.safetensors",
        "validation/resnet8-2.safetensors",
    ]


def test_decode_is_the_inverse_of_encode(work: Path, tmp_path: Path) -> None:
    run("decode", "graphs", "-o", tmp_path)
    for path in sorted((work / "zoo" / "train").iterdir()):
        back = read_artifact(tmp_path / "train" / f"{path.stem}.decoded.safetensors")
        original = read_artifact(path)
        assert back.tensors.keys() == original.tensors.keys()
        assert all(torch.equal(back.tensors[name], tensor) for name, tensor in original.tensors.items())
        assert commands(back.path) == ["zoo", "decode"]


def test_encode_writes_beside_its_input(model: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(model, tmp_path / "net.safetensors"))
    assert run("encode", copy, "--json").json["graphs"][0]["output"] == str(tmp_path / "net.graph.safetensors")


def test_the_history_has_a_line_per_epoch(work: Path) -> None:
    lines = (work / "metanet.history.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,")
    assert [line.split(",")[0] for line in lines[1:]] == ["0", "1", "2"]


def test_transform_keeps_the_architecture_and_says_where_it_comes_from(work: Path, model: Path) -> None:
    path = work / "transformed" / "resnet8-3.transformed.safetensors"
    assert commands(path) == ["zoo", "transform"]
    step = read_document(path)["lineage"][-1]
    assert step["metanetwork"] == read_artifact(work / "metanet.safetensors").digest
    assert step["recalibrated"] is True
    assert read_document(path)["architecture"] == read_document(model)["architecture"]


def test_transform_takes_a_graph_too(model: Path, tmp_path: Path) -> None:
    run("encode", model, "-o", tmp_path / "g.graph.safetensors")
    for source in (model, tmp_path / "g.graph.safetensors"):
        out = tmp_path / f"{source.suffixes[0]}.safetensors"
        run("transform", source, "--metanet", "metanet.safetensors", "--no-recalibrate", "-o", out)
    one, two = (read_artifact(path).tensors for path in tmp_path.glob(".*.safetensors"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_prune_names_its_files_by_speedup_and_loads_again(model: Path, tmp_path: Path) -> None:
    shown = run("prune", model, "-o", tmp_path, "--json").json["models"]
    assert files(tmp_path) == ["resnet8-3.pruned-1.5x.safetensors", "resnet8-3.pruned-2x.safetensors"]
    for row in shown:
        document = read_document(row["output"])
        step = document["lineage"][-1]
        assert (step["command"], step["input"]) == ("prune", model.name)
        assert step["requested"] == row["requested"] <= step["achieved"] == row["achieved"]
        assert row["error"] < 1e-6
        assert (row["reference"], row["weights"], row["not_comparable"]) == ("masked", "own", None)
        assert document["pruning"]["check"]["how"] == "masked"
        loaded = load_model(row["output"])
        assert sum(parameter.numel() for parameter in loaded.parameters()) == row["params_after"]


@pytest.mark.parametrize("criterion", ["group-l1", "bn-scale", "taylor", "random"])
def test_every_criterion_prunes(model: Path, tmp_path: Path, criterion: str) -> None:
    arguments = ("prune", model, "-s", "2", "--criterion", criterion, "--seed", "1", "-o")
    first, second = (tmp_path / name for name in ("a.safetensors", "b.safetensors"))
    run(*arguments, first)
    run(*arguments, second)
    assert first.read_bytes() == second.read_bytes()


def test_a_speedup_does_not_depend_on_the_others(model: Path, tmp_path: Path) -> None:
    run("prune", model, "-s", "2", "-s", "1.5", "-o", tmp_path / "both")
    run("prune", model, "-s", "2", "-o", tmp_path / "one" / "resnet8-3.pruned-2x.safetensors")
    name = "resnet8-3.pruned-2x.safetensors"
    assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_a_dry_run_shows_the_plan_and_writes_nothing(work: Path, model: Path) -> None:
    before = files(work)
    shown = run("prune", model, "--dry-run", "-s", "2").out
    assert "it is an output of the model" in shown
    families = run("prune", model, "--dry-run", "-s", "2", "--json").json["models"][0]["families"]
    assert sum(family["after"] for family in families) < sum(family["before"] for family in families)
    assert files(work) == before


def test_recalibration_alone_changes_batch_norm_statistics_alone(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run("finetune", model, "--epochs", "0", "--recalibrate", "-o", out)
    before, after = read_artifact(model).tensors, read_artifact(out).tensors
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert {"running_mean", "running_var"} <= changed <= {"running_mean", "running_var", "num_batches_tracked"}


TECHNIQUES = ("--ema", "0.9", "--mixup", "0.2", "--cutmix", "1", "--clip", "1", "--patience", "2")
RESUMABLE: dict[str, tuple[tuple[str, ...], str]] = {
    "zoo": (("zoo", "-o", "{}"), "train/resnet8-0.safetensors"),
    "finetune": (("finetune", "zoo/heldout", "-o", "{}"), "resnet8-3.finetuned.safetensors"),
    "finetune with all": (
        ("finetune", "zoo/heldout", "-o", "{}", "--teacher", "zoo/train/resnet8-0.safetensors", *TECHNIQUES),
        "resnet8-3.finetuned.safetensors",
    ),
    "meta-train": (
        ("meta-train", "graphs/train", "--validation", "graphs/validation", "-o", "{}/metanet.safetensors"),
        "metanet.safetensors",
    ),
}


@pytest.mark.parametrize("command", RESUMABLE)
def test_resumed_equals_uninterrupted(
    work: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, output = RESUMABLE[command]
    whole, broken = ([part.format(tmp_path / name) for part in template] for name in ("whole", "broken"))
    run(*whole)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", _interrupted_after(Checkpoint.save))
        assert call(*broken).code == 130
    checkpoint = output.replace(".safetensors", ".checkpoint.safetensors")
    assert checkpoint in files(tmp_path / "broken")
    assert output not in files(tmp_path / "broken")
    run(*broken, "--resume")
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    for name in files(tmp_path / "whole"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def _interrupted_after(save: Any) -> Any:
    def save_and_stop(self: Checkpoint, state: TrainState) -> None:
        save(self, state)
        raise KeyboardInterrupt

    return save_and_stop


def test_a_checkpoint_of_other_settings_is_not_used(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ("finetune", model, "-o", tmp_path / "out.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", _interrupted_after(Checkpoint.save))
        assert call(*arguments).code == 130
    run(*arguments, "--lr", "0.02", "--resume")
    assert "is of a run with other settings or inputs (finetune.lr was 0.01, is 0.02)" in caplog.text


def test_resume_skips_what_is_done(model: Path, tmp_path: Path) -> None:
    arguments = ("finetune", model, "-o", tmp_path / "out.safetensors", "--json")
    first = run(*arguments).json["models"][0]
    again = run(*arguments, "--resume").json["models"][0]
    assert (first["epochs"], again["epochs"]) == (2, 0)
    assert again["val_top1"] == first["val_top1"]


@pytest.mark.parametrize("name", ["zoo/heldout/resnet8-3.safetensors", "metanet.safetensors"])
def test_inspect_shows_any_artifact(work: Path, name: str) -> None:
    shown = run("inspect", name, "--json").json
    assert shown["digest"] in run("inspect", name).out
    assert shown["document"]["made_by"]["command"] in ("zoo", "meta-train")
    assert all(tensor["name"] in run("inspect", name).out for tensor in shown["tensors"])


def test_inspect_shows_what_a_graph_is_made_of(work: Path) -> None:
    path = "graphs/train/resnet8-0.graph.safetensors"
    graph = run("inspect", path, "--json").json["graph"]
    text = run("inspect", path).out
    assert f"{graph['neurons']} neurons" in text
    assert all(family["locked"] in text for family in graph["families"] if family["locked"])


def test_models_from_elsewhere_are_imported(work: Path, model: Path, tmp_path: Path) -> None:
    foreign = [tmp_path / f"{name}.pt" for name in "abc"]
    for path in foreign:
        torch.save(load_model(model).state_dict(), path)
    shape = ("--arch-arg", "image_size=8", "--input-shape", "1,8,8")
    shown = run("zoo", "import", *foreign, *shape, "-o", tmp_path / "zoo", "--json").json["models"]
    assert files(tmp_path / "zoo") == ["train/a.safetensors", "train/b.safetensors", "validation/c.safetensors"]
    assert {row["architecture"] for row in shown} == {"cifar:resnet8"}
    document = read_document(tmp_path / "zoo" / "train" / "a.safetensors")
    assert document["architecture"]["input_shape"] == [1, 8, 8]
    assert document["lineage"] == [{"command": "zoo", "input": "a.pt"}]


def test_a_bare_state_dict_is_pruned_for_the_images_of_the_settings(
    work: Path, model: Path, other_model: Path, tmp_path: Path
) -> None:
    torch.save(load_model(model).state_dict(), tmp_path / "net.pt")
    run("prune", tmp_path / "net.pt", "-s", "1.5", "-o", tmp_path / "small.safetensors")
    assert read_document(tmp_path / "small.safetensors")["architecture"]["input_shape"] == [1, 8, 8]
    torch.save(load_model(other_model).state_dict(), tmp_path / "seven.pt")  # does not fit them
    run("prune", tmp_path / "seven.pt", "-s", "1.5", "-o", tmp_path / "seven.small.safetensors")
    assert read_document(tmp_path / "seven.small.safetensors")["architecture"]["input_shape"] == [1, 32, 32]


@pytest.fixture
def other_model(tmp_path: Path) -> Path:
    """A model for seven classes."""
    architecture = Architecture("cifar:resnet8", {"num_classes": 7, "in_channels": 1, "width": 0.25}, (1, 8, 8))
    save_model(build(architecture), tmp_path / "seven.safetensors", arch=architecture)
    return tmp_path / "seven.safetensors"


def test_a_wrong_number_of_classes_is_named(work: Path, other_model: Path) -> None:
    ran = call("finetune", other_model)
    assert ran.code == 2
    assert "different numbers of classes" in ran.err
    assert "10 classes" in ran.err
    assert "an output of 7" in ran.err


def test_a_wrong_image_size_is_named(work: Path, model: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "image_size": 16}}))
    ran = call("finetune", model, "--params", params, "-o", tmp_path / "out.safetensors")
    assert ran.code == 2
    assert "different shapes" in ran.err
    assert "1x16x16" in ran.err


ERRORS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no such file": (("encode", "missing.pt"), 2, "does not exist"),
    "no such folder": (("prune", "{tmp}", "-o", "{tmp}/out"), 2, "no artifact of kind model"),
    "wrong kind": (("decode", "{model}"), 2, "kind graph"),
    "not an artifact": (("inspect", "params.yaml"), 4, "damaged"),
    "a pickle": (("encode", "{tmp}/pickle.pt"), 4, "unsafe"),
    "a flipped bit": (("inspect", "{tmp}/flipped.safetensors"), 4, "damaged"),
    "cut short": (("encode", "{tmp}/short.safetensors"), 4, "damaged"),
    "unknown architecture": (("encode", "{tmp}/state.pt", "--arch", "cifar:resnet21"), 2, "did you mean"),
    "architecture argument": (("encode", "{model}", "--arch-arg", "width"), 2, "KEY=VALUE"),
    "input shape": (("encode", "{model}", "--input-shape", "3,x"), 2, "3,224,224"),
    "unknown setting": (("finetune", "{model}", "--params", "{tmp}/bad.yaml"), 2, "did you mean 'epochs'?"),
    "no settings file": (("finetune", "{model}", "--params", "none.yaml"), 2, "does not exist"),
    "no data": (("finetune", "{model}", "--dataset", "cifar10", "--data-root", "{tmp}"), 2, "cifar-10"),
    "nothing to do": (("finetune", "{model}", "--epochs", "0"), 2, "--recalibrate"),
    "out of reach": (("prune", "{model}", "-s", "1000"), 3, "nearest feasible"),
    "unknown device": (("prune", "{model}", "--device", "tpu"), 2, "auto, cpu, cuda"),
    "one file for two": (("prune", "{model}", "-o", "{tmp}/one.safetensors"), 2, "need a folder"),
    "in the way": (("prune", "{model}", "-s", "2", "-o", "metanet.safetensors"), 2, "not an artifact of kind model"),
    "over itself": (("prune", "{model}", "-s", "2", "-o", "{model}"), 2, "is an input"),
    "below a file": (("prune", "{model}", "-s", "2", "-o", "params.yaml/x.safetensors"), 2, "params.yaml"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_one_panel_and_leaves_nothing_behind(case: str, work: Path, model: Path, tmp_path: Path) -> None:
    arguments, code, text = ERRORS[case]
    data = bytearray(model.read_bytes())
    (tmp_path / "short.safetensors").write_bytes(data[:-50])
    data[-3] ^= 4
    (tmp_path / "flipped.safetensors").write_bytes(data)
    (tmp_path / "bad.yaml").write_text("finetune: {epoch: 3}\n")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickle.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "state.pt")
    if case in ("no such folder", "no data"):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    before = files(work), files(tmp_path)
    ran = call(*(argument.format(tmp=tmp_path, model=model) for argument in arguments))
    assert ran.code == code, ran.err
    assert text in " ".join(ran.err.replace("│", " ").split())
    assert ran.err.count("╭") == 1
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert (files(work), files(tmp_path)) == before


def test_debug_shows_the_traceback(work: Path) -> None:
    ran = call("inspect", "params.yaml", "--debug")
    assert ran.code == 4
    assert "Traceback" in ran.err


def test_a_fault_of_ours_asks_for_a_report(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaprune_cli.stages.inspect.inspect", lambda *_: 1 / 0)
    ran = call("inspect", model)
    assert ran.code == 1
    assert "ZeroDivisionError" in ran.err
    assert "--debug" in ran.err


def test_json_is_one_object_and_progress_is_elsewhere(model: Path, tmp_path: Path) -> None:
    ran = run("encode", model, "-o", tmp_path / "g.safetensors", "--json")
    assert isinstance(json.loads(ran.out), dict)
    assert ran.err == "encode: 1/1\n"
    assert run("encode", model, "-o", tmp_path / "g.safetensors", "--quiet").err == ""


def test_a_score_head_goes_all_the_way(work: Path, model: Path, tmp_path: Path) -> None:
    rewritten, longer = (tmp_path / f"{name}.safetensors" for name in ("rewritten", "longer"))
    run("transform", model, "--metanet", "metanet.safetensors", "-o", rewritten)
    run("finetune", rewritten, "-o", longer)
    importance = read_document(rewritten)["importance"]
    assert read_document(longer)["importance"] == importance  # the units are the same
    assert len(importance) > 8
    run("prune", longer, "-s", "2", "-o", tmp_path / "small.safetensors")
    small = read_document(tmp_path / "small.safetensors")
    assert small["lineage"][-1]["criterion"] == "metanet"
    left = small["importance"]  # of the units that stay
    assert len(left) < len(importance)
    assert set(left) <= set(importance)
    shown = run("eval", tmp_path / "small.safetensors", longer, "--base", model, "--json").json["models"]
    assert {row["arm"] for row in shown} == {"plain", "metanet", "metanet finetuned"}


def test_scores_are_normalised_as_the_metanetwork_learnt_them(work: Path, model: Path, tmp_path: Path) -> None:
    network = MetaNetwork.load(work / "metanet.safetensors")
    network.config = replace(network.config, normaliser="rank")
    network.save(tmp_path / "ranks.safetensors")
    rewritten, auto, given = (tmp_path / f"{name}.safetensors" for name in ("rewritten", "auto", "given"))
    run("transform", model, "--metanet", tmp_path / "ranks.safetensors", "-o", rewritten)
    run("prune", rewritten, "-s", "2", "-o", auto)
    run("prune", rewritten, "-s", "2", "--normaliser", "rank", "-o", given)
    documents = [read_document(path) for path in (rewritten, auto, given)]
    assert {document["importance_normaliser"] for document in documents} == {"rank"}
    assert documents[1]["pruning"] == documents[2]["pruning"]
    run("prune", rewritten, "-s", "2", "--criterion", "group-l2", "-o", auto)  # auto is max there
    run("prune", rewritten, "-s", "2", "--criterion", "group-l2", "--normaliser", "max", "-o", given)
    assert read_document(auto)["pruning"] == read_document(given)["pruning"]


def test_a_model_without_a_score_cannot_be_ranked_by_it(model: Path, tmp_path: Path) -> None:
    ran = call("prune", model, "-s", "2", "--criterion", "metanet", "-o", tmp_path / "small.safetensors")
    assert ran.code == 2
    assert "a metanetwork that has a score head" in " ".join(ran.err.replace("│", "").split())
    assert not list(tmp_path.iterdir())


def test_sparse_learning_is_an_arm(model: Path, tmp_path: Path) -> None:
    sparse, small = tmp_path / "sparse.safetensors", tmp_path / "small.safetensors"
    run("finetune", model, "--sparsity", "5e-4", "-o", sparse)
    assert read_document(sparse)["lineage"][-1]["sparsity"] == 5e-4
    run("prune", sparse, "-s", "2", "-o", small)
    shown = run("eval", small, "--base", model, "--json").json["models"]
    assert {row["arm"] for row in shown} == {"plain", "sparse"}


def test_an_import_of_nothing_is_refused(tmp_path: Path) -> None:
    ran = call("zoo", "import", "-o", tmp_path / "zoo")
    assert ran.code == 2
    assert "No models to import" in ran.err
    assert not list(tmp_path.iterdir())
