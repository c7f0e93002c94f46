"""The promise on networks of other packages: thirty small ones of our suites, each through all steps of a trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from metaprune_cli.config import CoverageSettings
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.suite import missing_package, read_suite
from metaprune_cli.workflows.coverage.trial import Trial

SETTINGS = CoverageSettings(speedup=(1.5,))
KEPT = {
    "transformers": (
        "BertForSequenceClassification",
        "DistilBertForMaskedLM",
        "AlbertForMaskedLM",
        "ElectraForPreTraining",
        "GPT2LMHeadModel",
        "OPTForCausalLM",
        "LlamaForCausalLM",
        "GemmaForCausalLM",
        "ViTForImageClassification",
        "BeitForImageClassification",
        "Dinov2ForImageClassification",
        "ConvNextForImageClassification",
        "ResNetForImageClassification",
    ),
    "timm": (
        "resnet10t",
        "regnety_002",
        "mobilenetv3_small_050",
        "lcnet_050",
        "ghostnet_050",
        "efficientnet_lite0",
        "starnet_s050",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "mixer_s32_224",
    ),
    "segmentation": ("Unet", "FPN", "Linknet", "SegformerForSemanticSegmentation"),
    "detection": ("DetrForObjectDetection", "YolosForObjectDetection", "OwlViTForObjectDetection"),
}


def kept() -> Iterator[Entry]:
    for suite, names in KEPT.items():
        found = {entry.name: entry for entry in read_suite(suite)}
        yield from (found[name] for name in names)


def test_thirty_are_kept_and_their_packages_are_installed_with_the_tests() -> None:
    entries = list(kept())
    assert len(entries) == 30
    assert {missing_package(entry) for entry in entries} == {None}


@pytest.mark.parametrize("entry", [*kept()], ids=lambda entry: entry.name)
def test_models_of_packages(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps, in this process; loading in a fresh one, which takes as long as all of them, is tested elsewhere."""
    monkeypatch.setattr("metaprune_cli.workflows.coverage.proofs.load_alike", lambda *_: None)
    trial = Trial(entry, SETTINGS, tmp_path)
    trial.run()
    row = trial.row
    assert row["step"] == "done", row.get("error")
    (done,) = row["speedups"]
    assert done["achieved"] >= 1.5
    assert done["error"] is not None, row["reasons"]
    assert done["error"] < 1e-9
    assert done["trained"] is None
    assert done["batch"] in ("yes", None), row["reasons"]
    assert row["prunable_share"] > 0.5  # what returns its hidden states, as some detectors do, keeps their width
