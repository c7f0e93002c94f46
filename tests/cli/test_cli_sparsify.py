"""``sparsify``: its files and options, zeros that stay, and where `prune --kind` has gone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.artifacts import read_artifact, read_document, write_artifact
from metaprune_cli.models import Architecture, build, save_model

WRITTEN = ("kind", "format_version", "digest", "inputs")
"""What writing an artifact adds to its document."""
ARCHITECTURE = Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1}, (1, 8, 8))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of random weights, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(TINY))
    torch.manual_seed(0)
    save_model(build(ARCHITECTURE), "net.safetensors", arch=ARCHITECTURE)
    return Path("net.safetensors")


def zeros(path: str | Path) -> dict[str, torch.Tensor]:
    artifact = read_artifact(path)
    return {name: artifact.tensors[name] == 0 for name in artifact.document["zeros"]["entries"]}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        pytest.param(
            ("--kind", "unstructured", "--sparsity", "0.8", "--sparsity", "0.5"),
            ["sparse-0.5", "sparse-0.8"],
            id="unstructured",
        ),
        pytest.param(("--kind", "n:m"), ["sparse-2of4"], id="n:m"),
        pytest.param(("--kind", "block", "--block", "2x2", "--sparsity", "0.5"), ["sparse-2x2-0.5"], id="block"),
    ],
)
def test_files_are_named_by_kind_and_hold_what_is_said(model: Path, options: tuple[str, ...], names: list[str]) -> None:
    shown = run("sparsify", model, *options, "--json").json["models"]
    assert sorted(path.name for path in Path().glob("net.*.safetensors")) == [f"net.{n}.safetensors" for n in names]
    for row in shown:
        step = read_document(row["output"])["lineage"][-1]
        assert (step["kind"], step["pattern"], step["sparsity"]) == (row["kind"], row["pattern"], row["requested"])
        assert sum(int(zero.sum()) for zero in zeros(row["output"]).values()) == row["weights"] - row["kept"]
        assert row["sparsity"] == pytest.approx(row["requested"], abs=1e-3)


def test_zeros_stay_through_finetuning_encoding_and_removal(model: Path) -> None:
    run("sparsify", model, "--kind", "n:m", "-o", "sparse.safetensors")
    run("finetune", "sparse.safetensors", "--epochs", "1", "-o", "tuned.safetensors")
    before, after = zeros("sparse.safetensors"), zeros("tuned.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    run("encode", "tuned.safetensors", "-o", "g.graph.safetensors")
    run("decode", "g.graph.safetensors", "-o", "back.safetensors")
    assert read_document("back.safetensors")["zeros"] == read_document("tuned.safetensors")["zeros"]
    seen = run("inspect", "g.graph.safetensors").out
    assert "n:m 2:4: " in seen
    run("prune", "tuned.safetensors", "-s", "1.5", "-o", "small.safetensors")
    small = read_document("small.safetensors")["zeros"]
    assert (small["kind"], small["pattern"]) == ("unstructured", None)  # the pattern does not survive, the zeros do
    found = run("eval", "small.safetensors", "tuned.safetensors", "--latency-runs", "1", "--json").json["models"]
    assert [row["arm"] for row in found] == ["plain", "2:4", "2:4"]  # the model beside them is what they come from
    assert [row["requested"] for row in found[1:]] == [1.5, 1.0]
    assert 0.5 <= found[2]["density"] < 0.6


def test_a_second_zeroing_goes_on_from_the_first(model: Path) -> None:
    run("sparsify", model, "--kind", "unstructured", "--sparsity", "0.5", "--include-classifier", "-o", "a.safetensors")
    run("sparsify", "a.safetensors", "--kind", "unstructured", "--sparsity", "0.8", "-o", "b.safetensors")
    first, second = zeros("a.safetensors"), zeros("b.safetensors")
    assert "fc.weight" in second
    assert all(bool((second[name] | ~zero).all()) for name, zero in first.items())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param(("--kind", "n:m", "--scope", "family"), "--scope cannot be said of --kind n:m", id="scope"),
        pytest.param(("--speedup", "2"), "`metaprune prune`, `metaprune search`", id="an option of prune"),
        pytest.param(("--kind", "n:m", "--sparsity", "0.5"), "--pattern 1:4 zeroes three", id="sparsity of n:m"),
        pytest.param(("--pattern", "2:4"), "or say --kind n:m", id="pattern without its kind"),
        pytest.param(("--kind", "block", "--pattern", "2:4"), "--pattern cannot be said", id="pattern of blocks"),
        pytest.param(("--kind", "n:m", "--pattern", "4:4"), "N:M with N from 1 to M - 1", id="nothing goes"),
        pytest.param(("--kind", "block", "--block", "4"), "outputs x inputs, such as 4x1", id="block"),
        pytest.param(("--kind", "unstructured", "--sparsity", "1.5"), "above 0 and below 1", id="fraction"),
        pytest.param(("--kind", "n:m", "--pattern", "1:4", "--kernel-only"), "only has kernels for 2:4", id="kernels"),
    ],
)
def test_options_that_do_not_go_together_are_refused(model: Path, options: tuple[str, ...], text: str) -> None:
    refused = call("sparsify", model, *options)
    assert refused.code == 2
    assert text in " ".join(refused.err.replace("│", " ").split())
    assert list(Path().glob("net.*.safetensors")) == []


def test_a_dry_run_writes_nothing_and_says_why_layers_are_left_alone(model: Path) -> None:
    shown = run("sparsify", model, "--kind", "n:m", "--dry-run").out
    assert "it is the classifier" in shown
    assert "inputs of each output: 1, not a multiple of 4" in shown
    assert list(Path().glob("net.*.safetensors")) == []
    assert call("sparsify", model, "--kind", "n:m", "--kernel-only").code == 3


@pytest.mark.parametrize(
    "option", [("--kind", "structured"), ("--kind", "n:m"), ("--pattern", "2:4"), ("--block=4x1",)]
)
def test_prune_says_where_its_kinds_have_gone(model: Path, option: tuple[str, ...]) -> None:
    refused = call("prune", model, *option)
    assert refused.code == 2
    words = " ".join(refused.err.replace("│", " ").split())
    assert f"No such option: {option[0].partition('=')[0]}. `metaprune sparsify` takes it." in words


@pytest.mark.parametrize("command", ["prune", "iterate", "sensitivity"])
def test_settings_of_zeros_in_section_prune_are_refused_by_name(model: Path, command: str) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(TINY | {"prune": {"kind": "n:m", "pattern": "1:4", "speedup": 2}}))
    refused = call(command, model)
    assert refused.code == 2
    words = " ".join(refused.err.replace("│", " ").split())
    for key in ("kind", "pattern"):
        assert f"- {key}: belongs to section 'sparsify' now: metaprune sparsify zeroes weights" in words


def test_settings_come_from_the_section_of_its_name(model: Path) -> None:
    Path("params.yaml").write_text(yaml.safe_dump(TINY | {"sparsify": {"kind": "block", "sparsity": 0.25}}))
    rows = run("sparsify", model, "--json").json["models"]
    assert [(row["kind"], row["pattern"], row["requested"]) for row in rows] == [("block", "4x1", 0.25)]


def test_a_file_of_the_time_when_prune_had_kinds_is_one_of_today(model: Path) -> None:
    run("sparsify", model, "--kind", "n:m", "-o", "new.safetensors")
    artifact = read_artifact("new.safetensors")
    document = {key: value for key, value in artifact.document.items() if key not in WRITTEN}
    assert (document["made_by"]["command"], document["lineage"][-1]["command"]) == ("sparsify", "sparsify")
    document["made_by"]["command"] = document["lineage"][-1]["command"] = "prune"
    write_artifact("old.safetensors", "model", artifact.tensors, document, {})
    run("finetune", "old.safetensors", "--epochs", "1", "-o", "tuned.safetensors")
    assert zeros("tuned.safetensors").keys() == zeros("new.safetensors").keys()
    found = run("eval", model, "old.safetensors", "new.safetensors", "--latency-runs", "1", "--json").json["models"]
    assert [(row["arm"], row["step"]) for row in found[1:]] == [("2:4", "pruned")] * 2
