"""Networks that restore images: pruned they take images of any size; public files have their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import metaprune as mp
from metaprune_cli.errors import InputError
from metaprune_cli.models import Architecture, build, open_model
from metaprune_cli.models.recognise import recognise, shapes_of

SMALL: dict[str, tuple[str, dict[str, Any], int]] = {
    "dncnn": ("dncnn", {"depth": 5, "width": 12, "in_channels": 1, "norm": True}, 1),
    "srresnet": ("srresnet", {"blocks": 2, "width": 8, "scale": 4}, 4),
    "edsr": ("edsr", {"blocks": 2, "width": 8, "scale": 2, "res_scale": 0.1}, 2),
    "edsr x3": ("edsr", {"blocks": 1, "width": 8, "scale": 3, "long_skip": "bicubic", "in_channels": 1}, 3),
    "unet": ("unet", {"depth": 2, "width": 8}, 1),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_pruned_network_takes_images_of_any_size(name: str) -> None:
    kind, args, scale = SMALL[name]
    torch.manual_seed(0)
    model = build(Architecture(f"restore:{kind}", args)).eval()
    channels = args.get("in_channels", 3)
    pruned = mp.prune(model, torch.rand(1, channels, 24, 24), speedup=2)
    assert type(pruned.model) is type(model)
    for size in ((24, 24), (32, 20)):
        assert pruned.model(torch.rand(1, channels, *size)).shape == (1, channels, scale * size[0], scale * size[1])


def test_a_new_network_with_a_long_skip_returns_the_image_made_larger() -> None:
    model = build(Architecture("restore:edsr", {"blocks": 1, "width": 4, "long_skip": "bicubic"})).eval()
    image = torch.rand(1, 3, 9, 12)
    expected = torch.nn.functional.interpolate(image, scale_factor=2.0, mode="bicubic")
    torch.testing.assert_close(model(image), expected)


def test_a_shuffle_is_pruned_in_groups_of_its_pixels() -> None:
    torch.manual_seed(0)
    model = build(Architecture("restore:srresnet", {"blocks": 1, "width": 8, "scale": 2})).eval()
    pruned = mp.prune(model, torch.rand(1, 3, 16, 16), speedup=2).model
    assert pruned.upconv1.out_channels == 4 * pruned.conv_hr.in_channels < 4 * 8


KEYS = {
    "dncnn": ({"model.0.weight", "model.2.weight", "model.32.bias"}, 34),
    "srresnet": ({"conv_first.weight", "body.15.conv2.bias", "upconv1.weight", "upconv2.weight", "conv_hr.bias"}, 74),
    "edsr": ({"conv_first.weight", "body.15.conv2.bias", "conv_after_body.bias", "upsample.0.weight"}, 72),
    "unet": ({"inc.double_conv.0.weight", "down4.maxpool_conv.1.double_conv.4.running_var", "up1.up.bias"}, 118),
}


@pytest.mark.parametrize("name", KEYS)
def test_entries_are_called_as_in_public_models(name: str) -> None:
    keys, count = KEYS[name]
    found = build(Architecture(f"restore:{name}"), "meta").state_dict()
    assert keys <= found.keys()
    assert len(found) == count


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("dncnn", {"in_channels": 1}),
        ("dncnn", {"depth": 20, "norm": True}),
        ("edsr", {"scale": 4}),
        ("srresnet", {"scale": 2, "in_channels": 1}),
    ],
)
def test_a_state_dict_is_recognised(name: str, args: dict[str, Any]) -> None:
    model = build(Architecture(f"restore:{name}", args), "meta")
    found = recognise(shapes_of(model.state_dict()))
    assert found.name == f"restore:{name}"
    assert dict(found.args) == {"in_channels": 3, **args}


def test_a_file_with_other_widths_is_opened_by_name(tmp_path: Path) -> None:
    model = build(Architecture("restore:dncnn", {"in_channels": 1, "width": 9}))
    torch.save(model.state_dict(), tmp_path / "net.pth")
    opened = open_model(tmp_path / "net.pth", arch="restore:dncnn")
    x = torch.rand(1, 1, 20, 20)
    assert opened.architecture.input_shape == (1, 48, 48)
    torch.testing.assert_close(opened.model(x), model.eval()(x))


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("edsr", {"scale": 5}, "scale is 2, 3, 4 or 8, not 5"),
        ("srresnet", {"scale": 1}, "not 1"),
        ("edsr", {"long_skip": "cubic"}, "long_skip"),
        ("dncnn", {"deep": 3}, r"does not take these arguments(.|\n)*depth"),
    ],
)
def test_arguments_that_make_no_network_are_refused(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(Architecture(f"restore:{name}", args))


def test_names_without_a_network_are_refused() -> None:
    with pytest.raises(InputError, match=r"no architecture 'restore:dncn' \(did you mean restore:dncnn"):
        build(Architecture("restore:dncn"))
