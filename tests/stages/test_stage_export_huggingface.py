"""``export --format huggingface``: folders that ``from_pretrained`` opens where metaprune is not installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained import saved

from metaprune_cli.config import ExportSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build, open_model, save_model
from metaprune_cli.models.examples import example_inputs
from metaprune_cli.pruning.surgery import route_of, without
from metaprune_cli.stages.export import Exported, export
from metaprune_cli.training.progress import Silence
from metaprune_cli.workflows.loading import ModelSource

pytest.importorskip("transformers")
ELSEWHERE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("metaprune", "metaprune_cli"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
import torch, transformers
folder, auto, inputs, outputs = sys.argv[1:]
model = getattr(transformers, auto).from_pretrained(folder, trust_remote_code=True).eval()
given = torch.load(inputs)
found = {"logits": model(**given).logits}
if auto == "AutoModelForCausalLM":
    found["generated"] = model.generate(**given, max_new_tokens=4, do_sample=False)
torch.save(found, outputs)
"""
WIDTHS = {"same": (16, 16), "own": (16, 20)}
AUTOS = {
    "bert": "AutoModelForSequenceClassification",
    "masked": "AutoModelForMaskedLM",
    "llama": "AutoModelForCausalLM",
}


def pruned(name: str, widths: tuple[int, int], folder: Path) -> Path:
    """A model whose two feed-forward layers of 24 have these widths, as an artifact."""
    loaded = open_model(saved(name, folder / "m"))
    inputs = example_inputs(loaded.architecture)
    graph = encode(loaded.model, inputs)
    layers = [family for family in graph.units.families if family.locked is None and len(family.units) == 24]
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    for family, width in zip(layers, widths, strict=True):
        kept[family.units[width:]] = False
    small = without(loaded.model, graph, kept, inputs)
    assert route_of(small) == "class"
    save_model(small, folder / "small.safetensors", arch=loaded.architecture)
    return folder / "small.safetensors"


def written(file: Path, output: Path | None) -> Exported:
    settings = ExportSettings(format=("huggingface",))
    (done,) = export([file], output, settings, source=ModelSource(), data=None, progress=Silence())
    return done


def elsewhere(folder: Path, auto: str, inputs: Any, place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a process without metaprune computes, whose code from the folder is kept in ``place``."""
    for key, value in {"HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "1"}.items():
        monkeypatch.setenv(key, value)
    torch.save(inputs, place / "in.pt")
    command = [sys.executable, "-c", ELSEWHERE, str(folder), auto, str(place / "in.pt"), str(place / "out.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return torch.load(place / "out.pt")


@pytest.mark.parametrize(("name", "widths"), [("masked", "own"), ("llama", "own"), ("llama", "same")])
def test_from_pretrained_opens_it(name: str, widths: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = pruned(name, WIDTHS[widths], tmp_path)
    done = written(file, tmp_path / "out")
    assert (done.error < 1e-6, done.telling, done.batch, done.route) == (True, True, None, "class")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    if widths == "same":  # a folder as any other
        assert config["intermediate_size"] == 16
        assert "auto_map" not in config
        assert not (tmp_path / "out" / "modeling_pruned.py").exists()
    else:
        assert set(config["auto_map"]) >= {AUTOS[name]}
        assert "metaprune" not in (tmp_path / "out" / "modeling_pruned.py").read_text()
    small = open_model(file)
    inputs = example_inputs(small.architecture)
    found = elsewhere(tmp_path / "out", AUTOS[name], inputs, tmp_path, monkeypatch)
    torch.testing.assert_close(found["logits"], small.model(**inputs).logits)
    if "generated" in found:
        wanted = small.model.generate(**inputs, max_new_tokens=4, do_sample=False)  # type: ignore[operator]
        assert torch.equal(found["generated"], wanted)


def test_a_folder_of_ours_is_replaced_and_no_other(tmp_path: Path) -> None:
    file = pruned("bert", WIDTHS["own"], tmp_path)
    assert written(file, None).output == str(tmp_path / "small.hf")
    first = {path.name: path.read_bytes() for path in (tmp_path / "small.hf").iterdir()}
    written(file, None)
    assert {path.name: path.read_bytes() for path in (tmp_path / "small.hf").iterdir()} == first
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["m", "small.hf", "small.safetensors"]
    with pytest.raises(InputError, match="would destroy something"):
        written(file, tmp_path / "m")


def test_what_cannot_be_a_class_is_refused(tmp_path: Path) -> None:
    loaded = open_model(saved("vit", tmp_path / "m"))
    inputs = example_inputs(loaded.architecture)
    graph = encode(loaded.model, inputs)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    heads = next(family for family in graph.units.families if family.kind == "heads" and family.locked is None)
    kept[heads.units[1:]] = False
    small = without(loaded.model, graph, kept, inputs)
    if route_of(small) == "class":
        pytest.skip("the class follows")
    save_model(small, tmp_path / "small.safetensors", arch=loaded.architecture)
    with pytest.raises(InputError, match="is a program") as caught:
        written(tmp_path / "small.safetensors", None)
    assert any("--route class" in line for _, line in caught.value.lines())
    save_model(build(Architecture("cifar:resnet20")), tmp_path / "other.safetensors", arch="cifar:resnet20")
    with pytest.raises(InputError, match="Only models of transformers"):
        written(tmp_path / "other.safetensors", None)
    assert not (tmp_path / "other.hf").exists()


def test_code_of_an_export_is_refused_as_anybodys(tmp_path: Path) -> None:
    written(pruned("bert", WIDTHS["own"], tmp_path), tmp_path / "out")
    with pytest.raises(InputError, match="its own modelling code"):
        open_model(tmp_path / "out")
