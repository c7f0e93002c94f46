"""Any of a model's widths at little cost: weights are cropped, not masked, and one module takes them all in turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from metaprune_cli.config import Route
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.resize import Elastic, fill_, hollow_copy, resize_
from metaprune_cli.graph.slicing import Cutting, Kept
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.trials import Trials
from metaprune_cli.graph.widths import Widths, set_widths_
from metaprune_cli.pruning.ranking import plain_limits
from metaprune_cli.pruning.surgery import Taken, UnfitError
from metaprune_cli.pruning.width_space import WidthSpace

_PROBES = 3
"""Random removals that are tried before any is trusted, beside the largest."""
_PROGRAMS = 8
"""Rewritten programs that are kept."""


class Crops:
    """The networks that are left when units go, for many choices of units, one after the other.

    Whether the model's class follows is found out once, on the most that may go and on a few random removals. After
    that a choice costs an ``index_select`` for each dimension that is cut, and the attributes that mirror shapes
    (groups, features, heads) are set by value. A model whose class does not follow runs as a program, which has to be
    written anew for every choice: some hundred milliseconds.
    """

    def __init__(self, model: nn.Module, graph: NeuronGraph, trials: Trials, route: Taken) -> None:
        """See :meth:`of`, which finds the route."""
        self._model, self._graph, self._trials, self.route = model, graph, trials, route
        self._programs: OrderedDict[bytes, Program] = OrderedDict()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        graph: NeuronGraph,
        inputs: ExampleInputs,
        route: Route = "auto",
        *,
        probes: Sequence[Kept] = (),
        trials: Trials | None = None,
    ) -> Crops:
        """Prepare crops of a model; it is not changed.

        Args:
            model: the network; weights are its own where none are given.
            graph: its structure.
            inputs: what the graph was traced with.
            route: ``auto``: the class where it follows all probes, else the program.
            probes: removals that must be possible, best the largest of them and a few random ones; none: one unit of
                every family that may shrink, and random numbers of them.
            trials: of the same model, where some were made before.

        Raises:
            TargetError: there are no probes, and nothing can go.
            UnfitError: neither the class nor the program follows, or not the one that is asked for.
        """
        trials = trials or Trials(model, graph, inputs)
        probes = tuple(probes) or probes_of(WidthSpace.of(graph, plain_limits(graph.units, 1.0)))
        ways = {"class": _by_class, "program": Trials.by_program}
        reasons = []
        taken: tuple[Taken, ...] = ("class", "program") if route == "auto" else (route,)
        for way in taken:
            failed = next(((kept, why) for kept in probes if (why := ways[way](trials, kept)) is not None), None)
            if failed is None:
                return cls(model, graph, trials, way)
            reasons.append(failed)
        raise UnfitError("The model cannot take all of these widths.", *reasons[-1])

    def tensors(self, kept: Bool[Tensor, " units"], tensors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The state dict that is left, cut from ``tensors`` (default: the model's own); gradients flow through it.

        Where the first units of a dimension stay, what is cut is a view.

        Raises:
            NumericsError: the removal would not leave rectangular parameters; names the entry.
        """
        whole = self._graph.tensors if tensors is None else tensors
        cuts = self._cutting.cuts(kept)
        known: dict[int, tuple[Tensor, int | None]] = {}  # what is found out about an index is found out once
        cropped = dict(whole)
        for name, cut in cuts.items():
            tensor = whole[name]
            for dim, index in cut:
                place = known.get(id(index))
                if place is None:
                    place = known[id(index)] = _placed(index, tensor.device)
                where, length = place
                tensor = tensor.index_select(dim, where) if length is None else tensor.narrow(dim, 0, length)
            cropped[name] = tensor
        for alias, name in self._graph.aliases.items():
            cropped[alias] = cropped[name]
        return cropped

    def run(self, kept: Bool[Tensor, " units"], tensors: Mapping[str, Tensor] | None = None) -> nn.Module:
        """The small network, a module by itself: nothing in it is shared with the model or with other networks.

        It has the mode of the model, its parameter names and ``requires_grad``.
        """
        if self.route == "program":
            whole = self._graph.tensors if tensors is None else {n: t.detach() for n, t in tensors.items()}
            return self._trials.captured.without(self._graph.with_tensors(whole), kept)
        cropped = {name: tensor.detach().clone() for name, tensor in self.tensors(kept, tensors).items()}
        for alias, name in self._graph.aliases.items():
            cropped[alias] = cropped[name]
        small = hollow_copy(self._model)
        resize_(small, {name: tuple(tensor.shape) for name, tensor in cropped.items()})
        set_widths_(small, self._widths(small, kept))
        fill_(small, cropped)
        device = next((tensor.device for tensor in cropped.values()), None)
        return small if device is None else small.to(device)

    def borrowed(self, kept: Bool[Tensor, " units"], cropped: Mapping[str, Tensor]) -> nn.Module:
        """The small network over just these tensors (of :meth:`tensors`), through which gradients flow to them.

        It is one module for all choices: it is to be called at once, and is another network after the next call of
        this method. Its mode is the caller's business.
        """
        if self.route == "class":
            small = self._elastic.fill_(cropped)
            set_widths_(small, self._widths(small, kept))
            return small
        key = kept.numpy().tobytes()
        program = self._programs.pop(key, None)
        if program is None:
            program = self._trials.captured.without(self._graph, kept)
        self._programs[key] = program
        while len(self._programs) > _PROGRAMS:
            self._programs.popitem(last=False)
        _assign_(program, cropped)
        return program

    def __deepcopy__(self, memo: dict[int, Any]) -> Crops:
        """What says how to crop is shared; the module that is borrowed is not."""
        return Crops(self._model, self._graph, self._trials, self.route)

    @cached_property
    def _elastic(self) -> Elastic:
        return Elastic(self._model)

    @cached_property
    def _cutting(self) -> Cutting:
        return Cutting.of(self._graph)

    def _widths(self, small: nn.Module, kept: Tensor) -> Widths:
        return self._trials.widths_of(small, kept)


def _placed(index: Tensor, device: torch.device) -> tuple[Tensor, int | None]:
    """An ascending index where it is needed, and its length where it is the first so many of all."""
    length = index.numel()
    first = not length or int(index[-1]) == length - 1
    return (index, length) if first else (index.to(device), None)


def _by_class(trials: Trials, kept: Tensor) -> str | None:
    """Why the class does not follow, whatever of its attributes is set."""
    reason = trials.by_class(kept)
    return None if reason is None or trials.learn(kept) else reason


def probes_of(space: WidthSpace) -> tuple[Kept, ...]:
    """The smallest widths, and random ones."""
    generator = torch.Generator().manual_seed(0)
    return tuple(map(space.kept, (space.smallest(), *(space.uniform(generator) for _ in range(_PROBES)))))


def _assign_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors in the place of parameters and buffers, which they need not be."""
    for name, tensor in tensors.items():
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        held: dict[str, Any] = owner.__dict__["_parameters"]
        (held if leaf in held else owner.__dict__["_buffers"])[leaf] = tensor
