"""Keys and shapes tell the architecture: each known one is told from all the others."""

from __future__ import annotations

import pytest

from metaprune_cli.errors import InputError
from metaprune_cli.models import Architecture, build, list_architectures
from metaprune_cli.models.recognise import _default_shapes, default_keys, fit, recognise, shapes_of
from metaprune_cli.models.signatures import may_have, nearest, signature

CIFAR = [name for name in list_architectures() if name.startswith("cifar:") and name != "cifar:vit"]


def shapes(name: str, **args: object) -> dict[str, tuple[int, ...]]:
    return shapes_of(build(Architecture(name, args), "meta").state_dict())


def test_no_two_architectures_have_the_same_shapes() -> None:
    """But for the variants for quantisation, which are the plain ones, and two detectors that are never guessed."""
    seen: dict[object, str] = {}
    twins = "torchvision:fasterrcnn_mobilenet_v3_large_fpn", "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn"
    for name in list_architectures():
        if "quantized_" not in name:
            other = seen.setdefault(frozenset(_default_shapes(name).items()), name)
            assert other == name or {other, name} == set(twins)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_families_are_recognised(name: str) -> None:
    args = {"num_classes": 13, "in_channels": 2, "width": 0.5}
    assert recognise(shapes(name, **args)) == Architecture(name, args)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("torchvision:alexnet", {"num_classes": 10}),
        ("torchvision:googlenet", {"aux_logits": False, "num_classes": 3}),
        ("torchvision:inception_v3", {"num_classes": 3}),
        ("torchvision:wide_resnet50_2", {"num_classes": 1000}),
        ("torchvision:vit_b_16", {"num_classes": 5, "image_size": 384}),
        ("torchvision:squeezenet1_0", {"num_classes": 4}),
        ("torchvision:ssd300_vgg16", {"num_classes": 5}),
        ("torchvision:retinanet_resnet50_fpn", {"num_classes": 5}),
        ("torchvision:maskrcnn_resnet50_fpn", {"num_classes": 5}),
        ("torchvision:deeplabv3_resnet50", {"num_classes": 5}),
        ("torchvision:r3d_18", {"num_classes": 5}),
        ("torchvision:raft_small", {}),
    ],
)
def test_torchvision_arguments_are_inferred(name: str, args: dict[str, object]) -> None:
    assert fit(name, shapes(name, **args)) == Architecture(name, args)


def test_torchvision_is_recognised() -> None:
    assert recognise(shapes("torchvision:densenet121")) == Architecture(
        "torchvision:densenet121", {"num_classes": 1000}
    )


def test_the_plain_model_is_meant_rather_than_its_variant_for_quantisation() -> None:
    assert recognise(shapes("torchvision:quantized_resnet18")).name == "torchvision:resnet18"


def test_other_shapes_are_never_guessed() -> None:
    pruned = shapes("cifar:resnet8")
    pruned["layer1.0.conv1.weight"] = (15, 16, 3, 3)
    with pytest.raises(InputError, match=r"(?s)keys of cifar:resnet8, with other shapes.*--arch cifar:resnet8"):
        recognise(pruned)


def test_heads_leave_no_trace() -> None:
    with pytest.raises(InputError, match=r"(?s)keys of cifar:vit.*--arch cifar:vit"):
        recognise(shapes("cifar:vit"))


def test_the_file_has_the_signatures_of_all_architectures() -> None:
    """If not: ``signatures.write(recognise.default_keys())``."""
    found = default_keys()
    wrong = [name for name, keys in found.items() if not all(may_have(name, signature(each)) for each in keys)]
    missing = [name for name in found if may_have(name, "none")]
    assert (wrong, missing) == ([], [])
    assert nearest(found["cifar:resnet20"][1])[0] == ("cifar:resnet20", 1.0)


def test_nothing_is_built_for_keys_that_no_architecture_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaprune_cli.models.recognise.skeleton", lambda *_, **__: pytest.fail("built one"))
    with pytest.raises(InputError, match="20000 entries"):
        recognise({f"layers.{number}.weight": (3, 3) for number in range(20_000)})


def test_what_is_not_in_the_file_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: ["none"] for name in list_architectures() if name != "cifar:resnet8"}
    monkeypatch.setattr("metaprune_cli.models.signatures._known", lambda: known)
    assert recognise(shapes("cifar:resnet8")).name == "cifar:resnet8"


def test_a_signature_is_of_the_keys_whatever_their_order() -> None:
    assert signature(["a", "b"]) == signature(["b", "a"]) != signature(["ab"])


def test_unknown_keys() -> None:
    with pytest.raises(InputError, match=r"1 entries: weight \[3, 3\]"):
        recognise({"weight": (3, 3)})
