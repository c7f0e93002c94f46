"""Folders of ``save_pretrained``: what opens, to which weights, and what is refused with the next step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained import SIZED, made, saved

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build, open_model, save_model
from metaprune_cli.models.digest import model_sha256
from metaprune_cli.models.examples import example_inputs

pytest.importorskip("transformers")


@pytest.mark.parametrize("name", SIZED)
def test_a_folder_is_a_model(name: str, tmp_path: Path) -> None:
    loaded = open_model(saved(name, tmp_path / "my-model"))
    assert loaded.architecture.name == f"hf:{SIZED[name][0]}"
    assert not loaded.model.training
    torch.testing.assert_close(loaded.model.state_dict(), made(name).state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", SIZED)
def test_the_configuration_says_the_inputs(name: str, tmp_path: Path) -> None:
    loaded = open_model(saved(name, tmp_path / "m"))
    inputs = example_inputs(loaded.architecture)
    assert isinstance(inputs, dict)
    tokens = {"input_ids", "attention_mask"}
    assert set(inputs) == {"vit": {"pixel_values"}, "t5": {*tokens, "decoder_input_ids"}}.get(name, tokens)
    for tensor in inputs.values():
        assert tensor.is_floating_point() or 0 <= int(tensor.min()) <= int(tensor.max()) < SIZED[name][1]["vocab_size"]
    assert loaded.model(**inputs).logits.isfinite().all()


def test_what_is_saved_needs_the_folder_no_more(tmp_path: Path) -> None:
    loaded = open_model(saved("bert", tmp_path / "m"))
    inputs = example_inputs(loaded.architecture)
    assert encode(loaded.model, inputs).num_neurons > 0
    save_model(loaded.model, tmp_path / "a.safetensors", arch=loaded.architecture)
    for file in (tmp_path / "m").iterdir():
        file.unlink()
    again = open_model(tmp_path / "a.safetensors")
    assert torch.equal(again.model(**inputs).logits, loaded.model(**inputs).logits)
    assert again.architecture == loaded.architecture


def test_weights_in_several_files(tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "m", max_shard_size="8KB")
    assert not (folder / "model.safetensors").exists()
    assert torch.equal(open_model(folder).model.classifier.weight, made("bert").classifier.weight)
    before = model_sha256(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    one = next(iter(index["weight_map"]))
    index["weight_map"][one] = "../elsewhere.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CorruptFileError, match="outside its folder"):
        open_model(folder)
    with pytest.raises(CorruptFileError, match="outside its folder"):
        model_sha256(folder)
    assert len(before) == 64


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    made("bert").half().save_pretrained(tmp_path / "m")
    assert {p.dtype for p in open_model(tmp_path / "m").model.parameters()} == {torch.float32}


def _setting(**entries: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.update(entries)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_setting(auto_map={"AutoModel": "modeling_evil.Evil"}), "its own modelling code"),
        (_setting(text_config={"auto_map": {"AutoModel": "x.Y"}}), "its own modelling code"),
        (_setting(quantization_config={"bits": 4}), "quantization_config: the weights are quantised"),
        (_setting(attn_implementation="someone/kernels"), "expected eager or sdpa, got 'someone/kernels'"),
        (_setting(_attn_implementation={"": "someone/kernels"}), "cannot be used"),
        (_setting(architectures=["NoSuchModel"]), "has no model called 'NoSuchModel'"),
        (_setting(architectures=["AutoModel"]), "has no model called 'AutoModel'"),
        (_setting(architectures=["os.system"]), "has no model called 'os.system'"),
        (_setting(architectures=["PreTrainedModel"]), "has no model called 'PreTrainedModel'"),
        (_setting(architectures=["BertModel", "GPT2Model"]), "does not name the model's class"),
        (_setting(architectures=None), "does not name the model's class"),
        (_setting(hidden_size=32), "weights are not those of a BertForSequenceClassification"),
        (_setting(num_hidden_layers=3), "missing"),
        (_setting(num_hidden_layers=100_000), "far larger than the contents of the file"),
        (_setting(vocab_size=10**50), "vocab_size: expected"),
        (_setting(hidden_act="no-such-function"), "could not be built"),
    ],
)
def test_a_configuration_that_cannot_be_used(change: Callable[[Any], None], text: str, tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises((InputError, CorruptFileError)) as caught:
        open_model(folder)
    said = " ".join([caught.value.what, *(line for _, line in caught.value.lines())])
    assert text in said
    assert any(label == "next step" for label, _ in caught.value.lines())


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("config.json", b"{", "not written by save_pretrained"),
        ("config.json", b"[1]", "not written by save_pretrained"),
        ("model.safetensors", b"\0" * 40, "not a valid safetensors file"),
        ("model.safetensors", None, "no weights in safetensors"),
        ("adapter_config.json", b"{}", "an adapter"),
    ],
)
def test_a_folder_that_is_damaged(file: str, content: bytes | None, text: str, tmp_path: Path) -> None:
    folder = saved("bert", tmp_path / "m")
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_bytes(content)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises((InputError, CorruptFileError), match=text):
        open_model(folder)


def test_an_artifact_reaches_for_nothing(tmp_path: Path) -> None:
    for entries in ({"auto_map": {"AutoModel": "a.B"}}, {"_attn_implementation": "someone/kernels"}):
        with pytest.raises(InputError, match="configuration"):
            build(Architecture("hf:BertModel", entries))


def test_another_class_for_the_same_weights(tmp_path: Path) -> None:
    loaded = open_model(saved("bert", tmp_path / "m"), arch="hf:BertModel", arch_args={"hidden_act": "relu"})
    assert (type(loaded.model).__name__, loaded.architecture.args["hidden_act"]) == ("BertModel", "relu")
    with pytest.raises(InputError, match="holds a model of transformers"):
        open_model(tmp_path / "m", arch="cifar:resnet20")


def test_timm_by_name(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    architecture = Architecture("timm:test_resnet", {"num_classes": 7})
    model = build(architecture).eval()
    save_model(model, tmp_path / "a.safetensors", arch=architecture)
    torch.save(model.state_dict(), tmp_path / "a.pt")
    image = torch.randn(1, 3, 64, 64)
    bare = open_model(tmp_path / "a.pt", arch="timm:test_resnet", arch_args={"num_classes": 7})
    for found in (open_model(tmp_path / "a.safetensors"), bare):
        assert torch.equal(found.model(image), model(image))
        assert found.architecture.input_shape == (3, 160, 160)
    with pytest.raises(InputError, match=r"no model called 'test_resne'"):
        build(Architecture("timm:test_resne"))
    with pytest.raises(InputError, match="weights are not fetched"):
        build(Architecture("timm:test_resnet", {"pretrained": True}))
