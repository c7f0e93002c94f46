"""Rules for normalisations: their parameters are features, and what they mix is remembered."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from metaprune_cli.graph.trace.labels import Elements, Label, varying
from metaprune_cli.graph.trace.rules.boundary import no_activation
from metaprune_cli.graph.trace.rules.elementwise import attach_features
from metaprune_cli.graph.trace.rules.moves import as_activation
from metaprune_cli.graph.trace.tracer import Tracer

aten = torch.ops.aten


def batch_norm(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Scale, shift, running mean and running variance belong to the neurons along dimension 1."""
    ids, weight = trace.ids(args[0]), trace.elements(args[0])
    if weight is not None:
        return _of_a_weight(trace, weight, args), *(None for _ in out[1:])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    per_channel = ids.movedim(1, -1)
    for operand, kind in zip(args[1:5], ("scale", "shift", "mean", "variance"), strict=False):
        _attach(trace, operand, per_channel, kind)
    return ids


def layer_norm(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """Scale and shift belong to the neurons of the normalised dimensions, which are mixed."""
    ids = as_activation(trace, args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    first = ids.dim() - len(args[1])
    if any(d >= first for d in varying(ids)):
        trace.neurons.span(ids, "LayerNorm")
    for operand, kind in zip(args[2:4], ("scale", "shift"), strict=False):
        _attach(trace, operand, ids, kind)
    return ids


def group_norm(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """As a batch norm, but groups of channels are mixed, and every group must keep as many channels."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    groups, per_channel = args[6], ids.movedim(1, -1)
    for operand, kind in zip(args[1:3], ("scale", "shift"), strict=False):
        _attach(trace, operand, per_channel, kind)
    channels = ids.size(1)
    if channels > groups:
        trace.neurons.span(ids, "GroupNorm")
    if groups > 1:
        trace.neurons.tie_along(per_channel.unflatten(-1, (groups, channels // groups)), [per_channel.dim() - 1])
    return ids


def softmax(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """Ids pass; along the neurons' own axis, the neurons are mixed."""
    ids = trace.ids(args[0])
    if ids is None:
        return no_activation(trace, func, args, kwargs)
    if args[1] % ids.dim() in varying(ids):
        trace.neurons.span(ids, "softmax")
    return ids


def _of_a_weight(trace: Tracer, weight: Elements, args: tuple[Any, ...]) -> Elements:
    """A weight that a norm standardises (arXiv 1903.10520): its elements, with those of scale and shift beside them."""
    shape = [-1 if d == 1 else 1 for d in range(weight.index.dim())]
    operands = [e for operand in args[1:3] if (e := trace.elements(operand)) is not None]
    beside = [
        part.view(lambda index: index.view(shape)).spread(weight.index.shape) for e in operands for part in e.alone()
    ]
    return weight.beside(beside, mixes="a norm of the weights")


def _attach(trace: Tracer, operand: object, ids: Tensor, kind: str) -> None:
    elements = trace.elements(operand)
    if elements is not None:
        attach_features(trace, elements, ids, kind)
