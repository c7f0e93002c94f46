"""A zoo: what is wrong with a member is said before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metaprune_cli.config import DataSettings, OptimSettings, ZooMember, ZooSettings
from metaprune_cli.errors import InputError
from metaprune_cli.stages.zoo import zoo
from metaprune_cli.training.progress import Silence

RESNET = ZooMember("cifar:resnet8", {"width": 0.25})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (ZooMember("cifar:resnet9"), "no architecture"),
        (ZooMember("cifar:resnet8", {"widht": 0.25}), "widht"),
        (ZooMember("cifar:resnet8", {"num_classes": 7}), "classes"),
        (ZooMember("cifar:resnet8", {"in_channels": 3}), "channels"),
    ],
)
def test_a_wrong_member_is_found_before_the_first_is_trained(
    wrong: ZooMember, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(*_: Any, **__: Any) -> None:
        pytest.fail("a model was trained")

    monkeypatch.setattr("metaprune_cli.workflows.trainer.Trainer.train", trained)
    settings = ZooSettings(members=(RESNET, wrong), train=OptimSettings(epochs=1))
    given: dict[str, Any] = {"data": DataSettings(train_limit=60), "device": torch.device("cpu"), "progress": Silence()}
    with pytest.raises(InputError) as caught:
        zoo(tmp_path / "zoo", settings, **given)
    assert said in str(caught.value)
    assert not list(tmp_path.rglob("*.safetensors"))
