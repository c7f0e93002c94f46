"""Names, builders and their arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metaprune_cli.errors import InputError
from metaprune_cli.models import Architecture, build, list_architectures, with_input_shape

CIFAR = [name for name in list_architectures() if name.startswith("cifar:")]
TORCHVISION = [name for name in list_architectures() if name.startswith("torchvision:")]


@pytest.mark.parametrize("name", CIFAR)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (2, 20)])
def test_cifar_families_take_any_input(name: str, channels: int, size: int) -> None:
    args = {"num_classes": 7, "in_channels": channels, "image_size": size, "width": 0.25}
    architecture = with_input_shape(Architecture(name, args))
    assert architecture.input_shape == (channels, size, size)
    model = build(architecture).eval()
    assert model(torch.zeros(2, *architecture.input_shape)).shape == (2, 7)


@pytest.mark.parametrize(("name", "depth"), [(name, int(name[12:])) for name in CIFAR if "resnet" in name])
def test_cifar_resnets_are_as_deep_as_they_say(name: str, depth: int) -> None:
    layers = [
        m for m in build(Architecture(name), "meta").modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    projections = 2
    assert len(layers) - projections == depth


def test_width_scales_every_layer() -> None:
    full, half = (build(Architecture("cifar:vgg11_bn", {"width": width}), "meta") for width in (1.0, 0.5))
    for (name, big), (_, small) in zip(full.named_parameters(), half.named_parameters(), strict=True):
        if not name.endswith("head.2.bias"):
            assert big.shape[0] == 2 * small.shape[0] or name.endswith("head.2.weight"), name


def test_every_torchvision_model_is_built_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise AssertionError("nothing is ever downloaded")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    assert len(TORCHVISION) >= 121
    for name in TORCHVISION:
        args = {} if "raft" in name else {"num_classes": 5}
        model = build(Architecture(name, args), "meta")
        assert all(tensor.is_meta for tensor in model.state_dict().values()), name
        sizes = {size for tensor in model.state_dict().values() for size in tensor.shape[:1]}
        assert not args or any(size % 5 == 0 for size in sizes), name


def test_seeded_builds_are_equal() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build(Architecture("cifar:resnet8")).state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet56", "did you mean cifar:resnet56"),
        ("resnet18", "did you mean torchvision:resnet18"),
        ("cifar:resnet57", "did you mean cifar:resnet5"),
        ("torchvision:resnet55", "did you mean torchvision:resnet5"),
        ("nonsense", "expected: cifar:NAME"),
        ("no.such.module:net", "No module named 'no'"),
        ("collections:Nothing", "has no attribute 'Nothing'"),
        ("string:digits", "is a str"),
        ("collections:OrderedDict", "got: OrderedDict"),
    ],
)
def test_unknown_names(name: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        build(Architecture(name))


@pytest.mark.parametrize(
    ("name", "args", "text"),
    [
        ("cifar:resnet8", {"clases": 3, "widht": 2}, r"clases=3 .*num_classes.*widht=2 \(did you mean width"),
        ("cifar:vit", {"patch_size": 5}, "indivisible"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "does not take these arguments"),
        ("torchvision:resnet18", {"colour": 1}, "unexpected keyword argument 'colour'"),
    ],
)
def test_arguments_that_do_not_fit(name: str, args: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        build(Architecture(name, args))


def test_factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from torch import nn\ndef make(size=2):\n    return nn.Linear(size, 3)\n"
    (tmp_path / "my_factory_module.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    architecture = Architecture("my_factory_module:make", {"size": 4})
    with pytest.raises(InputError, match="--allow-import"):
        build(architecture, allow_import=False)
    assert build(architecture).weight.shape == (3, 4)


def test_architecture_documents() -> None:
    for architecture in (Architecture("a"), Architecture("cifar:vit", {"width": 0.5}, (1, 8, 8))):
        assert Architecture.from_document(architecture.to_document()) == architecture
