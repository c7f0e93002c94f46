"""Which architecture a bare state dict belongs to, told by its keys and shapes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from metaprune_cli.errors import InputError
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.registry import is_factory, list_architectures, skeleton, takes_argument
from metaprune_cli.models.signatures import may_have, signature

Shapes = Mapping[str, tuple[int, ...]]

# Auxiliary heads are there or not; torchvision drops them from some of the models it hands out.
_VARIANTS: Mapping[str, tuple[dict[str, bool], ...]] = {
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
        InputError: none of them has these keys and shapes; those with the same keys are named.
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
    raise InputError(
        "The architecture of this state dict cannot be told from its keys and shapes.",
        expected="the keys and shapes of a known architecture",
        got=f"the keys of {' or '.join(same_keys)}, with other shapes" if same_keys else _glimpse(shapes),
        where=where,
        next_step=f"name it: --arch {same_keys[0] if same_keys else 'package.module:factory'} --arch-arg key=value",
    )


def default_signatures() -> dict[str, list[str]]:
    """The signatures of every known architecture's keys, one for each variant; all of them are built."""
    names = (name for name in list_architectures() if not name.startswith(_SAME_KEYS_AS_FLOAT))
    return {
        name: [signature(_default_shapes(name, **variant)) for variant in _VARIANTS.get(name, ({},))] for name in names
    }


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
            next_step="leave --arch-arg out, or give the file that was meant",
        )


def fit(name: str, shapes: Shapes) -> Architecture | None:
    """A known architecture with the arguments that show in ``shapes``; None where the keys differ.

    Other shapes than those arguments give (a pruned model's) leave the width at its default.
    """
    for variant in _VARIANTS.get(name, ({},)):
        base = _default_shapes(name, **variant)
        if base.keys() == shapes.keys():
            fitted = Architecture(name, {**variant, **_inferred(name, variant, base, shapes)})
            if "width" in fitted.args and _built_shapes(fitted) != shapes:
                return Architecture(name, {key: value for key, value in fitted.args.items() if key != "width"})
            return fitted
    return None


def _inferred(name: str, variant: dict[str, bool], base: Shapes, shapes: Shapes) -> dict[str, int | float]:
    """The arguments whose values show in the shapes. ``base`` are those of the defaults."""
    args: dict[str, int | float] = {}
    classifier: set[str] = set()
    for argument in ("num_classes", "in_channels"):
        if takes_argument(name, argument):
            moved = _moved_by(name, variant, base, argument)
            classifier |= moved.keys()
            comparable = [entry for entry in moved if len(shapes[entry]) == len(base[entry])]
            values = {shapes[entry][moved[entry][0]] // moved[entry][1] for entry in comparable}
            if len(values) == 1:
                args[argument] = values.pop()
    if takes_argument(name, "width"):
        widest = max((entry for entry in base if entry not in classifier and base[entry]), key=lambda e: base[e][0])
        if shapes[widest]:
            args["width"] = shapes[widest][0] / base[widest][0]
    if "encoder.pos_embedding" in base and takes_argument(name, "image_size"):
        tokens = math.prod(shapes["encoder.pos_embedding"][1:2]) - 1  # one is the class token
        args["image_size"] = math.isqrt(tokens) * math.prod(shapes["conv_proj.weight"][-1:])
    return args


def _moved_by(name: str, variant: dict[str, bool], base: Shapes, argument: str) -> dict[str, tuple[int, int]]:
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
def _default_shapes(name: str, **variant: bool) -> Shapes:
    """The shapes of an architecture's defaults; kept, as many files may be compared with all of them."""
    return _built_shapes(Architecture(name, variant))


def _built_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    return shapes_of(skeleton(architecture, allow_import=False).state_dict())


def _glimpse(shapes: Shapes) -> str:
    first = ", ".join(f"{name} {list(shape)}" for name, shape in list(shapes.items())[:3])
    return f"{len(shapes)} entries: {first}, ..."
