"""What foreign files leave open: which names are meant, which architecture, and if a pickled module can be used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from metaprune_cli.models.adapting import check_numbers, is_of_others, missing_counters
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.naming import own_names, prefixes, readings, renamed
from metaprune_cli.models.recognise import recognise, shapes_of
from metaprune_cli.models.signatures import has, nearest, signature

_NARROW_OR_WIDE = (torch.float16, torch.bfloat16, torch.float64)


def told_by_names(states: Mapping[str, Tensor], where: Path) -> tuple[Architecture, dict[str, Tensor], list[str]]:
    """The known architecture of a state dict, its entries under the architecture's names, and what was done to them.

    Raises:
        InputError: it is none of them.
    """
    likest, best = dict(states), 0.0
    for prefix, named in _all_readings(states):
        complete = _completed_shapes(named)
        if has(signature(complete)):
            said = [f"removed the prefix {prefix} from all names"] if prefix else []
            return recognise(complete, where), named, said
        share = next((share for _, share in nearest(complete)), 0.0)
        if share > best:
            likest, best = named, share
    return recognise(_completed_shapes(likest), where), likest, []


def as_named(arch: str, states: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of a state dict under an architecture's names, as far as these can be told."""
    for _, named in _all_readings(states):
        complete = _completed_shapes(renamed(named, own_names(arch, named)))
        if has(signature(complete)):
            return complete
    return shapes_of(states)


def _all_readings(states: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """What the entries may be called, with the prefix that was taken off: as they are first."""
    relevant = {name: tensor for name, tensor in states.items() if not is_of_others(name)}
    for prefix in prefixes(relevant):
        bare = {name.removeprefix(prefix): tensor for name, tensor in relevant.items()}
        for names in readings(bare):
            yield prefix, renamed(bare, names)


def _completed_shapes(states: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Every known architecture has a counter for each running mean, or for none."""
    shapes = shapes_of(states)
    return shapes if has(signature(shapes)) else shapes | dict.fromkeys(missing_counters(shapes), ())


def ready(module: nn.Module, notes: list[str], where: Path) -> nn.Module:
    """A pickled module for use: in eval mode, on the CPU, of single precision, which is noted.

    Raises:
        InputError: there are values in it that are no numbers.
    """
    parameters = dict(module.named_parameters())
    types = {tensor.dtype for tensor in parameters.values()} & set(_NARROW_OR_WIDE)
    if types:
        names = sorted(str(dtype).removeprefix("torch.") for dtype in types)
        notes.append(f"cast from {', '.join(names)} to float32")
        module = module.float()
    check_numbers({name: (tensor, name in parameters) for name, tensor in module.state_dict().items()}, where)
    return module.eval()
