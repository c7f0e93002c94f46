"""The honest boundary: what has no rule is locked and kept, with the reason."""

from __future__ import annotations

from typing import Any

from metaprune_cli.graph.arguments import tensors_in
from metaprune_cli.graph.trace.labels import Label
from metaprune_cli.graph.trace.tracer import Tracer


def unknown(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Label:
    """An honest boundary: every neuron that meets it is locked, its parameters are kept verbatim."""
    for leaf in tensors_in((args, kwargs, out)):
        ids = trace.ids(leaf)
        if ids is not None:
            trace.neurons.lock(ids, f"meets the operator {func.overloadpacket}, which has no rule")
        elements = trace.elements(leaf)
        if elements is not None:
            trace.builder.spend(elements)
            for part in elements.alone():
                trace.builder.note(part.entry, f"meets the operator {func.overloadpacket}, which has no rule")
    return None


def no_activation(trace: Tracer, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Label:
    """An operator that meets no activation: its parameters, if any, are kept verbatim."""
    for leaf in tensors_in((args, kwargs)):
        elements = trace.elements(leaf)
        for part in () if elements is None else elements.alone():
            trace.builder.note(part.entry, f"meets the operator {func.overloadpacket} without an activation")
    return None
