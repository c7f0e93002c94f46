"""A model from an architecture and tensors of any shapes: how every pruned model loads again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import map_tensors
from metaprune_cli.graph.resize import fill_, resize_
from metaprune_cli.graph.trace.tracer import call, meta_copy
from metaprune_cli.graph.widths import Widths, set_widths_, widths_lost
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.consent import was_named
from metaprune_cli.models.examples import example_inputs, has_example
from metaprune_cli.models.on_meta import Limits
from metaprune_cli.models.recognise import shapes_of
from metaprune_cli.models.registry import build, is_factory, shell, skeleton

_LISTED = 10


Adapt = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Mapping[str, Tensor]]
"""From a model's own entries and a file's to those the model is to get."""


def assemble(
    architecture: Architecture,
    state: Mapping[str, Tensor],
    where: Path,
    allow_import: bool = True,
    widths: Widths = MappingProxyType({}),
    adapt: Adapt | None = None,
) -> nn.Module:
    """Build on meta (as far as that goes), resize to the tensors' shapes, assign them; in eval mode.

    Args:
        architecture: what to build.
        state: the tensors, which the model takes over without copying; second names of tied ones may be missing.
        where: the file they are from, for messages.
        allow_import: whether a factory may be imported that the user has not named here (``consent.py``).
        widths: attributes that hold a width, where the file says any.
        adapt: brings a foreign state dict to the model's entries; None: it has them.

    Raises:
        InputError: the tensors do not fit the architecture; all that is missing, unexpected and mismatched is listed.
    """
    limits = Limits.of(state)
    allow_import = allow_import or (is_factory(architecture.name) and was_named(architecture.name, where))
    for construct in (skeleton, shell, build):
        model = construct(architecture, allow_import=allow_import, limits=limits)
        _fill_(model, state, architecture, where, widths, adapt)
        if not _has_meta(model):  # constants that are not in the state dict: only a construction knows them
            break
    return model.eval()


def widths_to_load(architecture: Architecture, model: nn.Module, where: Path) -> dict[str, dict[str, int]]:
    """Check, on meta, that ``assemble`` will be able to make this model again, and say which widths that takes.

    Raises:
        InputError: as ``assemble``.
    """
    state = {name: tensor.to("meta") for name, tensor in model.state_dict().items()}
    again = skeleton(architecture)
    if shapes_of(state) == shapes_of(again.state_dict()):
        _fill_(again, state, architecture, where)
        return {}
    resize_(again, _differing(again, state))
    widths = widths_lost(model, again)
    _fill_(skeleton(architecture), state, architecture, where, widths)
    return widths


def _differing(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shapes of entries that a model has in another size."""
    own = shapes_of(model.state_dict())
    return {
        name: shape
        for name, shape in shapes_of(state).items()
        if name in own and len(own[name]) == len(shape) and own[name] != shape
    }


def _fill_(
    model: nn.Module,
    state: Mapping[str, Tensor],
    architecture: Architecture,
    where: Path,
    widths: Widths = MappingProxyType({}),
    adapt: Adapt | None = None,
) -> None:
    own = model.state_dict(keep_vars=True)
    if adapt is not None:
        state = adapt(own, state)
    first_names: dict[int, str] = {}
    firsts = {name: first_names.setdefault(id(tensor), name) for name, tensor in own.items()}
    complete = dict(state)
    for name, first in firsts.items():
        for here, there in ((name, first), (first, name)):
            if here not in complete and there in complete:
                complete[here] = complete[there]
    _check_entries(architecture, own, complete, where)
    shapes = shapes_of(complete)
    resized = shapes != shapes_of(own)
    resize_(model, {name: shape for name, shape in shapes.items() if shape != tuple(own[name].shape)})
    set_widths_(model, widths)
    fill_(model, complete)
    if resized and has_example(architecture, model):
        _check_runs(model, architecture, where)


def _check_entries(
    architecture: Architecture, own: Mapping[str, Tensor], state: Mapping[str, Tensor], where: Path
) -> None:
    """Compare a state dict with the model that is to take it; sizes may differ, keys and dimensions may not.

    Raises:
        InputError: listing all missing, unexpected and mismatched entries.
    """
    mismatched = [
        f"{name} {_described(tensor)} for {_described(own[name])}"
        for name, tensor in state.items()
        if name in own
        and (tensor.dim() != own[name].dim() or tensor.is_floating_point() != own[name].is_floating_point())
    ]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "mismatched": mismatched,
    }
    if any(problems.values()):
        raise InputError(
            f"The tensors are not those of {architecture.name}.",
            expected=f"{len(own)} entries",
            got="\n".join(_listing(label, names) for label, names in problems.items() if names),
            where=where,
            next_step="check --arch and --arch-arg",
        )


def _described(tensor: Tensor) -> str:
    return f"{list(tensor.shape)}" if tensor.is_floating_point() else f"{list(tensor.shape)} of whole numbers"


def _listing(label: str, names: list[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return f"{len(names)} {label}: {', '.join(names[:_LISTED])}{more}"


def _check_runs(model: nn.Module, architecture: Architecture, where: Path) -> None:
    """Run a resized model once on meta: shapes that fit the entries one by one may still not fit each other.

    Where the architecture itself does not run there (its control flow depends on data), nothing can be said.
    """
    problem = _problem_on_meta(model, architecture)
    if problem is not None and _problem_on_meta(skeleton(architecture), architecture) is None:
        raise InputError(
            f"The tensors have the names of {architecture.name}, but their shapes do not fit together.",
            got=problem,
            where=where,
            next_step="check --arch, --arch-arg and --input-shape",
        )


def _problem_on_meta(model: nn.Module, architecture: Architecture) -> str | None:
    """The error of a forward pass without values, with the layer it came from and what that was given; or None."""
    entered: list[str] = []
    try:
        inputs = map_tensors(example_inputs(architecture, model), lambda t: torch.empty_like(t, device="meta"))
        running = meta_copy(model).eval()
        for name, module in running.named_modules():
            if isinstance(getattr(module, "weight", None), Tensor):
                module.register_forward_pre_hook(partial(_enter, entered, name))
        with torch.no_grad():
            call(running, inputs)
    except Exception as error:  # noqa: BLE001 - whatever the model raises is the answer
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        return "; ".join([what, *entered[-1:]])
    return None


def _enter(entered: list[str], name: str, module: nn.Module, args: tuple[object, ...]) -> None:
    """Note that a layer with a weight is about to run on these arguments."""
    given = ", ".join(str(list(arg.shape)) for arg in args if isinstance(arg, Tensor))
    weight = module.weight
    assert isinstance(weight, Tensor)
    entered.append(f"the last layer that ran is {name}, with a weight of {list(weight.shape)} on an input of {given}")


def _has_meta(model: nn.Module) -> bool:
    attributes = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return any(tensor.is_meta for tensor in chain(model.parameters(), model.buffers(), attributes))
