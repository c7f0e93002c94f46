"""Trace the neurons: run a model on the meta device and carry, beside every tensor, what its elements are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from metaprune_cli.graph.arguments import map_tensors_in, tensors_in
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.trace.answers import Answers
from metaprune_cli.graph.trace.builder import StructureBuilder
from metaprune_cli.graph.trace.choices import Choice, Choices, chooser, counted, is_feigned, places, run_chosen
from metaprune_cli.graph.trace.labels import Elements, Label
from metaprune_cli.graph.trace.layouts import run_on_meta
from metaprune_cli.graph.trace.record import READ, Recorder

ExampleInputs = Tensor | tuple[Any, ...] | dict[str, Any]
_MOST = 1 << 22
"""Elements of a tensor up to which the example's values are carried along."""


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` whose parameters and buffers are on the meta device; no values are copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # computed from parameters before every forward pass
                memo[id(value)] = torch.empty_like(value, device="meta", requires_grad=False)
    return copied(model, memo)


def call(model: nn.Module, example_inputs: ExampleInputs) -> Any:
    """``model`` on a tensor, a tuple of positional or a dict of keyword inputs."""
    if isinstance(example_inputs, dict):
        return model(**example_inputs)
    if isinstance(example_inputs, tuple):
        return model(*example_inputs)
    return model(example_inputs)


@contextmanager
def plain_operators(model: nn.Module | None = None) -> Iterator[None]:
    """Keep attention and ``model``'s recurrent layers in their elementary operators: none that hide neurons or MACs.

    Gradients are on, so that ``torch.no_grad`` inside a model is seen; nothing in a skeleton asks for any.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    recurrent = model is not None and any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), _without_libraries() if recurrent else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def _without_libraries() -> Iterator[None]:
    """On real values, libraries of kernels run a recurrent layer as one operator, or several at once."""
    before = torch._C._get_mkldnn_enabled(), torch._C._get_cudnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before[0])
        torch._C._set_cudnn_enabled(before[1])


class Tracer(TorchDispatchMode):
    """Carries labels past every ATen operator, by the table of rules.

    A tensor is known by its identity; all tensors of a trace are kept alive (on meta they hold no memory). Values that
    depend on neither inputs nor parameters (position indices, masks) are computed for real, so that indexing with
    them moves the ids as it moves the data. What depends on the inputs alone (whether a mask is all ones, which edges
    a graph has) is computed beside, on the example's values: Python reads its numbers there.

    With ``real`` the whole model runs for real, which is what control flow that depends on data needs: every tensor
    has a value, and what is traced is what happens to this one input.
    """

    def __init__(
        self,
        builder: StructureBuilder,
        rules: Callable[[Any], Callable[..., Any]],
        *,
        real: bool = False,
        recorder: Recorder | None = None,
        answers: Answers | None = None,
        choices: Choices | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.builder = builder
        self.neurons, self.heads = builder.neurons, builder.heads
        self.real = real
        self._rules = rules
        self._recorder, self._answers, self._choices = recorder, answers, choices
        self._labels: dict[int, Label] = {}
        self._values: dict[int, Tensor] = {}
        self._seen: dict[int, Tensor] = {}
        self._alive: defaultdict[int, dict[int, Tensor]] = defaultdict(dict)  # by their memory
        self._feigned: set[int] = set()  # tensors that have no elements in truth
        self._if_used: dict[int, tuple[Tensor, str]] = {}
        self.lively: set[int] = set()
        self.keeps_zero = False  # what is computed at the moment, as its rule has to know

    def label(self, tensor: object) -> Label:
        """The label of a tensor, or None."""
        return self._labels.get(id(tensor))

    def ids(self, tensor: object) -> Tensor | None:
        """The neuron ids of an activation, or None where it has none."""
        label = self.label(tensor)
        return label if isinstance(label, Tensor) else None

    def elements(self, tensor: object) -> Elements | None:
        """The state-dict elements a tensor consists of, or None."""
        label = self.label(tensor)
        return label if isinstance(label, Elements) else None

    def value(self, tensor: object) -> Tensor | None:
        """The real value of a tensor that depends on no input and no parameter (of any tensor, with ``real``)."""
        if self.real:
            return tensor if isinstance(tensor, Tensor) else None
        return self._values.get(id(tensor))

    def seen(self, tensor: object) -> Tensor | None:
        """The value that a tensor has on the example inputs, where it depends on no parameter."""
        known = self.value(tensor)
        return self._seen.get(id(tensor)) if known is None else known

    def show(self, tensor: Tensor, value: Tensor) -> None:
        """Say what an input is in the example."""
        self._keep(tensor)
        self._seen[id(tensor)] = value

    def attach(self, tensor: Tensor, label: Label, value: Tensor | None = None) -> None:
        """Say what ``tensor`` carries."""
        self._keep(tensor)
        if label is not None:
            self._labels[id(tensor)] = label
        else:
            self._labels.pop(id(tensor), None)
        if value is not None:
            self._values[id(tensor)] = value

    def lock_if_used(self, tensor: Tensor, ids: Tensor, reason: str) -> None:
        """Lock neurons as soon as an operator, or whoever calls the model, takes this tensor."""
        self._keep(tensor)
        self._if_used[id(tensor)] = ids, reason

    def used(self, tensor: Tensor) -> None:
        """Say that somebody takes a tensor."""
        if id(tensor) in self._if_used:
            self.neurons.lock(*self._if_used.pop(id(tensor)))

    def sharing(self, tensor: Tensor) -> list[Tensor]:
        """All tensors of the trace that see the same memory."""
        return list(self._alive[tensor.untyped_storage()._cdata].values())

    def _keep(self, tensor: Tensor) -> None:
        self._alive[tensor.untyped_storage()._cdata][id(tensor)] = tensor

    def forget_value(self, tensor: Tensor) -> None:
        """What was a constant is one no longer."""
        self._values.pop(id(tensor), None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator on meta, then move the labels past it."""
        given: dict[str, Any] = dict(kwargs or {})
        args, given = map_tensors_in(self.stand_in, (args, given))
        if func is READ and self._choices is not None and (mask := self._choices.summed(args[0])) is not None:
            return self.__torch_dispatch__(torch.ops.aten.nonzero.default, types, (mask,)).size(0)
        tensors = tensors_in((args, given))
        for tensor in tensors if self._if_used else ():
            self.used(tensor)
        choice = self._choice(func, args)
        out = self._compute(func, args, given, tensors, choice)
        if self._choices is not None:
            self._choices.note(func, args, given, out)
        if choice is not None and self.real:
            choice = Choice(choice.number, counted(chooser(func, args), out))
        feigned = choice is not None and choice.feigned
        if feigned or (self._feigned and is_feigned(func, args, lambda tensor: id(tensor) in self._feigned)):
            feigned = True
            self._feigned.update(map(id, tensors_in(out)))
        if any(self.label(t) is not None for t in tensors) or not self._all_known(tensors):
            with self.builder.uncounted() if feigned else nullcontext():
                labels = self._rules(func)(self, func, args, given, out)
            for leaf, label in zip(_outputs(out), labels if isinstance(labels, tuple) else (labels,), strict=False):
                if isinstance(leaf, Tensor):
                    self.attach(leaf, label)
        if self._recorder is not None:
            asked = func is READ and type(out) is bool and (self.real or not self._all_known(tensors))
            self._recorder.step(func, args, given, out, self, out if asked else None, choice)
        return out

    def _choice(self, func: Any, args: tuple[Any, ...]) -> Choice | None:
        """How many an operator takes, where that is made up."""
        by = None if self._choices is None else chooser(func, args)
        choice = None if by is None or self._choices is None else self._choices.of(by)
        return choice if self.real or self.seen(by) is None else None

    def places(self, mask: Tensor) -> list[Tensor]:
        """The places that a mask chooses, one index for each of its dimensions; any, where nobody knows which."""
        known = self.seen(mask)
        if known is not None:
            return list(known.cpu().nonzero().unbind(1))
        if self._choices is None:
            return [torch.zeros(mask.shape, dtype=torch.int64)]
        return places(mask, self._choices.of(mask).count, "cpu")

    def _compute(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor], choice: Choice | None
    ) -> Any:
        """The operator's output: real, on meta, or on meta with a value where all that goes in has one."""
        if self.real:
            out = func(*args, **kwargs)
            for leaf in tensors_in(out):
                self._keep(leaf)
            return out
        if self._all_known(tensors):
            return self._constant(func, args, kwargs)
        if func is READ and args[0].dtype is torch.bool and self._answers is not None:
            return self._answers.next()
        shown = self._shown(func, args, kwargs, tensors)
        if func is READ and shown is not None:
            return shown
        if shown is not None and torch.Tag.dynamic_output_shape in func.tags:
            out = tree_map(lambda leaf: torch.empty_like(leaf, device="meta"), shown)
        elif choice is not None:
            out = run_chosen(func, args, kwargs, choice.count)
        else:
            out = run_on_meta(func, self._by_position(func, args), kwargs)
        for leaf in tensors_in(out):
            for tensor in self.sharing(leaf) if func._schema.is_mutable and shown is None else (leaf,):
                self._seen.pop(id(tensor), None)
            self._values.pop(id(leaf), None)
        self._seen |= {id(a): b for a, b in zip(tensors_in(out), tensors_in(shown), strict=False)}
        return out

    def _shown(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]) -> Any:
        """What an operator makes of the example's values; None where it meets others too."""
        values = [self.seen(t) for t in tensors]
        if any(value is None or value.numel() > _MOST for value in values) or _draws(func):
            return None
        real_args, real_kwargs = map_tensors_in(self.seen, (args, dict(kwargs)))
        if isinstance(real_kwargs.get("device"), torch.device | str):
            real_kwargs["device"] = torch.device("cpu")
        try:
            return func(*real_args, **real_kwargs)
        except (RuntimeError, TypeError, IndexError, NotImplementedError):
            return None

    def _by_position(self, func: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """``x[mask]`` with the places that the example's mask chooses, whose number meta does not know."""
        if func is not torch.ops.aten.index.Tensor:
            return args
        chosen: list[Tensor | None] = []
        for index in args[1]:
            known = index is not None and index.dtype is torch.bool and self.seen(index) is not None
            chosen += [part.to("meta") for part in self.places(index)] if known else [index]
        return (args[0], chosen, *args[2:])

    def _all_known(self, tensors: list[Tensor]) -> bool:
        return not self.real and all(id(t) in self._values for t in tensors)

    def stand_in(self, tensor: Tensor) -> Tensor:
        """Tensors that were not on meta (plain attributes, literals) are constants with a value; real ones stay."""
        if self.real or tensor.device.type == "meta":
            return tensor
        stand_in = torch.empty_like(tensor, device="meta")
        self.attach(stand_in, None, tensor.detach().cpu())
        self._keep(tensor)
        return stand_in

    def _constant(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operator on constants for real; its outputs go on as meta tensors with a value."""
        sources = {id(self._values[id(t)]): t for t in tensors_in((args, kwargs))}
        real_args, real_kwargs = map_tensors_in(lambda t: self._values[id(t)], (args, dict(kwargs)))
        if isinstance(real_kwargs.get("device"), torch.device | str):
            real_kwargs["device"] = torch.device("cpu")
        real = func(*real_args, **real_kwargs)
        views = func(*args, **kwargs) if func.is_view else None  # stand-ins of views share their storage too

        def wrap(value: Any, view: Any = None) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in sources:
                return sources[id(value)]
            stand_in = torch.empty_like(value, device="meta") if view is None else view
            self.attach(stand_in, None, value)
            return stand_in

        return tree_map(wrap, real) if views is None else tree_map(wrap, real, views)


def _draws(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _outputs(out: Any) -> tuple[Any, ...]:
    return tuple(out) if isinstance(out, tuple | list) else (out,)
