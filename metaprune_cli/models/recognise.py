"""Which architecture a bare state dict belongs to, told by its keys and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from metaprune_cli.errors import InputError
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.registry import is_factory, is_scaled, list_architectures, skeleton, takes_argument
from metaprune_cli.models.signatures import may_have, nearest, signature

Shapes = Mapping[str, tuple[int, ...]]

NEAREST, _LISTED = 3, 6

# By the beginning of names. Auxiliary heads are there or not; torchvision drops them from some models it hands out.
_VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "cifar:resnet": ({}, {"shortcut": "padded"}),
    "cifar:mobilenet_v2": ({}, {"projected": True}),
    "cifar:vgg": ({}, {"bias": True}),
    "restore:dncnn": ({}, {"depth": 20}, {"norm": True}, {"depth": 20, "norm": True}),
    "restore:srresnet": ({}, {"scale": 2}),
    "restore:edsr": ({}, {"scale": 4}, {"blocks": 32}, {"blocks": 32, "scale": 4}),
    "torchvision:googlenet": ({}, {"aux_logits": False}),
    "torchvision:inception_v3": ({}, {"aux_logits": False}),
}
# The number of attention heads leaves no trace in the shapes, and here it is an argument; these two detectors differ in
# the size of their images alone: never a guess.
_AMBIGUOUS = frozenset(
    {
        "cifar:vit",
        "torchvision:fasterrcnn_mobilenet_v3_large_fpn",
        "torchvision:fasterrcnn_mobilenet_v3_large_320_fpn",
    }
)
_SAME_KEYS_AS_FLOAT = "torchvision:quantized_"
"""Ready for quantisation, a model has the same entries as without: the plain one is meant."""


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of every entry of a state dict."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def recognise(shapes: Shapes, where: Path | None = None) -> Architecture:
    """The known architecture whose keys and shapes these are, its arguments inferred from the shapes.

    Raises:
        InputError: none of them has these keys and shapes; those with the same keys are named, or the nearest.
    """
    same_keys: list[str] = []
    found = signature(shapes)
    for name in list_architectures():
        if name.startswith(_SAME_KEYS_AS_FLOAT) or not may_have(name, found):
            continue
        fitted = fit(name, shapes)
        if fitted is None:
            continue
        same_keys.append(name)
        if name not in _AMBIGUOUS and _built_shapes(fitted) == shapes:
            return fitted
    if same_keys:
        raise InputError(
            "The architecture cannot be recognised from the keys and shapes of the state dict.",
            expected="the keys and shapes of a known architecture",
            got=f"the keys of {' or '.join(same_keys)}, with other shapes",
            where=where,
            next_step=f"name it: --arch {same_keys[0]} --arch-arg key=value",
        )
    raise unknown(shapes, where)


def unknown(shapes: Shapes, where: Path | None) -> InputError:
    """What is said of keys that no known architecture has: which are the nearest, and what differs."""
    likest = [(name, share) for name, share in nearest(shapes) if not name.startswith(_SAME_KEYS_AS_FLOAT)][:NEAREST]
    lines = [_glimpse(shapes)]
    if likest:
        shares = ", ".join(f"{name} ({share:.0%} of the keys)" for name, share in likest)
        lines += [f"nearest: {shares}", *_differences(likest[0][0], shapes)]
    file = "FILE" if where is None else where.name
    return InputError(
        "The architecture cannot be recognised from the keys and shapes of the state dict.",
        expected="the keys and shapes of a known architecture",
        got="\n".join(lines),
        where=where,
        next_step=f"name the function or class that makes it: metaprune encode {file} --arch package.module:factory",
    )


def _differences(name: str, shapes: Shapes) -> list[str]:
    """How the keys and shapes of a file differ from an architecture's defaults."""
    base = min(
        (_default_shapes(name, **variant) for variant in variants_of(name)),
        key=lambda each: len(each.keys() ^ shapes.keys()),
    )
    differing = [key for key in base if key in shapes and shapes[key] != base[key]]
    found = {
        "it has, and the file has not": [key for key in base if key not in shapes],
        "the file has besides": [key for key in shapes if key not in base],
        "of other shapes": [f"{key} {list(shapes[key])} for {list(base[key])}" for key in differing],
    }
    return [f"{name}: {words}: {_listed(some)}" for words, some in found.items() if some]


def _listed(listed: Sequence[str]) -> str:
    return f"{len(listed)} ({', '.join(listed[:_LISTED])}{', ...' if len(listed) > _LISTED else ''})"


def default_keys() -> dict[str, list[list[str]]]:
    """The keys of every known architecture, of each variant; all of them are built."""
    names = (name for name in list_architectures() if not name.startswith(_SAME_KEYS_AS_FLOAT))
    return {name: [list(_default_shapes(name, **variant)) for variant in variants_of(name)] for name in names}


def variants_of(name: str) -> tuple[Mapping[str, Any], ...]:
    """The arguments of a known architecture that change its keys."""
    return next((each for start, each in _VARIANTS.items() if name.startswith(start)), ({},))


def told(name: str, shapes: Shapes) -> Architecture:
    """A named architecture with the arguments that show in ``shapes``; a factory has none that do."""
    known = not is_factory(name) and name in list_architectures()
    return (fit(name, shapes) if known else None) or Architecture(name)


def check_args(told: Architecture, args: Mapping[str, Any], where: Path) -> None:
    """Refuse arguments that contradict the tensors; the width may, as pruning changes it.

    Raises:
        InputError: naming each of them with what the tensors say.
    """
    wrong = {key: value for key, value in told.args.items() if key != "width" and args.get(key, value) != value}
    if wrong:
        raise InputError(
            f"The arguments of {told.name} contradict the tensors.",
            expected=", ".join(f"{key}={value}" for key, value in wrong.items()),
            got=", ".join(f"{key}={args[key]}" for key in wrong),
            where=where,
            next_step="leave out --arch-arg, or use the file you meant",
        )


def fit(name: str, shapes: Shapes) -> Architecture | None:
    """A known architecture with the arguments that show in ``shapes``; None where the keys differ.

    Other shapes than those arguments give (a pruned model's) leave the width at its default.
    """
    for variant in variants_of(name):
        base = _default_shapes(name, **variant)
        if base.keys() == shapes.keys():
            fitted = Architecture(name, {**variant, **_inferred(name, variant, base, shapes)})
            if "width" in fitted.args and _built_shapes(fitted) != shapes:
                return Architecture(name, {key: value for key, value in fitted.args.items() if key != "width"})
            return fitted
    return None


def _inferred(name: str, variant: Mapping[str, Any], base: Shapes, shapes: Shapes) -> dict[str, Any]:
    """The arguments whose values show in the shapes. ``base`` are those of the defaults."""
    args: dict[str, Any] = {}
    classifier: set[str] = set()
    for argument in ("num_classes", "in_channels"):
        if takes_argument(name, argument):
            moved = _moved_by(name, variant, base, argument)
            classifier |= moved.keys()
            comparable = [entry for entry in moved if len(shapes[entry]) == len(base[entry])]
            values = {shapes[entry][moved[entry][0]] // moved[entry][1] for entry in comparable}
            if len(values) == 1:
                args[argument] = values.pop()
    if is_scaled(name):
        widest = max((entry for entry in base if entry not in classifier and base[entry]), key=lambda e: base[e][0])
        if shapes[widest]:
            args["width"] = shapes[widest][0] / base[widest][0]
    if "encoder.pos_embedding" in base and takes_argument(name, "image_size"):
        tokens = math.prod(shapes["encoder.pos_embedding"][1:2]) - 1  # one is the class token
        args["image_size"] = math.isqrt(tokens) * math.prod(shapes["conv_proj.weight"][-1:])
    return args


def _moved_by(name: str, variant: Mapping[str, Any], base: Shapes, argument: str) -> dict[str, tuple[int, int]]:
    """The entry and dimension of every size that an integer argument sets (what 1, never a default, moves).

    With each of them the size for an argument of 1: a detector scores every class at several anchors.
    """
    other = _built_shapes(Architecture(name, {**variant, argument: 1}))
    return {
        entry: (dim, size)
        for entry, shape in other.items()
        for dim, size in enumerate(shape)
        if size != base[entry][dim] and base[entry][dim] % size == 0
    }


@cache
def _default_shapes(name: str, **variant: Any) -> Shapes:
    """The shapes of an architecture's defaults; kept, as many files may be compared with all of them."""
    return _built_shapes(Architecture(name, variant))


def _built_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return shapes_of(skeleton(architecture, allow_import=False).state_dict())


def _glimpse(shapes: Shapes) -> str:
    first = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:3])
    return f"{len(shapes)} entries: {first}, ..."
