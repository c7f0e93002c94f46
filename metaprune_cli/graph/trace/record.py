"""The program beneath a model: the ATen operators that one forward pass runs, in order, with what they meet."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from metaprune_cli.graph.arguments import found_in, map_tensors_in, tensors_in
from metaprune_cli.graph.nest import leaves, map_tensors, plain
from metaprune_cli.graph.trace.choices import Choice
from metaprune_cli.graph.trace.labels import Label

READ = torch.ops.aten._local_scalar_dense.default
"""What Python calls to read a number from a tensor."""


@dataclass(frozen=True)
class Value:
    """A tensor of the program, by its number."""

    number: int


@dataclass(frozen=True)
class TypeOf:
    """The type that a state-dict entry, by its number, has at the time: what was recorded as the entry's own type."""

    number: int
    now: torch.dtype


@dataclass(frozen=True)
class Step:
    """One operator.

    Attributes:
        operator: an ATen overload (or one of a library, such as torchvision's).
        args: its arguments, tensors as values.
        kwargs: likewise, by name.
        outputs: the values it makes, None for what is no tensor; one for an operator with a single output.
        single: whether the operator returns one thing rather than a tuple of them.
        labels: what every tensor that takes part carries, after the operator.
        grad: whether gradients are recorded there (False inside ``torch.no_grad``).
        answer: what Python was told, where it asked a tensor that depends on data a yes-or-no question.
        choice: how many were made up, where data says how much there is.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int | None, ...]
    single: bool
    labels: dict[int, Label] = field(repr=False)
    grad: bool = True
    answer: bool | None = None
    choice: Choice | None = None

    def inputs(self) -> list[int]:
        """The numbers of the values that go in."""
        return self._inputs

    @cached_property
    def _inputs(self) -> list[int]:
        return [value.number for value in found_in((self.args, self.kwargs), Value)]

    def written(self) -> list[int]:
        """The numbers of the inputs that the operator changes in place."""
        found: list[int] = []
        schema = self.operator._schema
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            given = self.args[position] if position < len(self.args) else self.kwargs.get(argument.name)
            found += [value.number for value in found_in(given, Value)]
        return found


@runtime_checkable
class Known(Protocol):
    """What the recorder asks the tracer."""

    def label(self, tensor: object) -> Label:
        """What a tensor carries."""

    def value(self, tensor: object) -> Tensor | None:
        """Its real value, where it depends on no input and no parameter."""


@dataclass(frozen=True)
class Recording:
    """A program as it was run once.

    Attributes:
        steps: the operators.
        values: every tensor by its number, on meta.
        shapes: of every tensor, when it was met first (``transpose_`` makes a value of its own).
        inputs: the numbers of the inputs' tensors, in the order of their leaves.
        entries: number -> state-dict entry.
        constants: number -> real value of what depends on neither inputs nor entries.
        outputs: what the model returned, tensors as values, None for objects of other people's classes.
    """

    steps: tuple[Step, ...]
    values: tuple[Tensor, ...]
    inputs: tuple[int, ...]
    entries: dict[int, str]
    constants: dict[int, Tensor]
    outputs: Any
    shapes: tuple[torch.Size, ...] = ()

    def folded(self, varying: frozenset[int] = frozenset()) -> Recording:
        """The same without the steps that compute constants, whose values are known.

        Args:
            varying: numbers of values that must be computed although they depend on no input (their size is the
                batch's).
        """
        dirty: set[int] = set()
        while True:
            kept, dynamic = self._dynamic(varying, dirty)
            written = {self.storage(n) for step in kept for n in step.written() if n not in self.entries}
            written |= self._stale(kept)
            if written <= dirty:
                used = {n for step in kept for n in step.inputs()} | {v.number for v in leaves(self.outputs, Value)}
                constants = {n: v for n, v in self.constants.items() if n in used - dynamic}
                return replace(self, steps=tuple(kept), constants=constants)
            dirty |= written

    @cached_property
    def unknown(self) -> set[int]:
        """The values that depend on inputs or entries, or were drawn."""
        found = {*self.inputs, *self.entries}
        for step in self.steps:
            if found.intersection(step.inputs()) or torch.Tag.nondeterministic_seeded in step.operator.tags:
                found.update(n for n in (*step.outputs, *step.written()) if n is not None)
        return found

    @property
    def reads_draws(self) -> bool:
        """Whether Python reads a number that depends on more than constants: in another pass it may be another."""
        return any(step.operator is READ and self.unknown.intersection(step.inputs()) for step in self.steps)

    @property
    def answers(self) -> tuple[bool, ...]:
        """What Python was told where it asked about data."""
        asked = [s for s in self.steps if s.answer is not None and self.unknown.intersection(s.inputs())]
        return tuple(step.answer for step in asked if step.answer is not None)

    @property
    def choices(self) -> list[Choice]:
        """The numbers that were made up for what data chooses."""
        return [step.choice for step in self.steps if step.choice is not None]

    @property
    def sized_by_values(self) -> bool:
        """Whether values say how much there is (what a mask chooses, what is not zero): in another pass it is other.

        Where it was made up, sizes follow from it.
        """
        counting = [step for step in self.steps if step.choice is None and self._counts(step)]
        return any(self.unknown.intersection(step.inputs()) for step in counting)

    def _counts(self, step: Step) -> bool:
        if step.operator.overloadpacket is torch.ops.aten.index:
            return any(self.values[value.number].dtype is torch.bool for value in found_in(step.args[1], Value))
        return torch.Tag.dynamic_output_shape in step.operator.tags

    def _dynamic(self, varying: frozenset[int], dirty: set[int]) -> tuple[list[Step], set[int]]:
        dynamic = {*self.inputs, *self.entries, *varying}
        kept = []
        for step in self.steps:
            made = [n for n in step.outputs if n is not None]
            if step.operator is READ and not self.unknown.intersection(step.inputs()):
                continue  # a number that is the same in every pass: what Python made of it is recorded
            if (
                dynamic.intersection(step.inputs())
                or torch.Tag.nondeterministic_seeded in step.operator.tags
                or any(n in varying or self.storage(n) in dirty for n in made)
            ):
                kept.append(step)
                dynamic.update(made)
        return kept, dynamic

    def _stale(self, kept: list[Step]) -> set[int]:
        """Memory of constants that is written to after a step has used it: its last value is not what the step saw."""
        wanted = {id(step) for step in kept}
        later: set[int] = set()
        stale: set[int] = set()
        for step in reversed(self.steps):
            if id(step) in wanted:
                stale |= {memory for n in step.inputs() if n in self.constants and (memory := self.storage(n)) in later}
            later |= {self.storage(n) for n in step.written()}
        return stale

    def storage(self, number: int) -> int:
        """What a value's memory is known by."""
        return int(self.values[number].untyped_storage()._cdata)


class Recorder:
    """Takes down every operator that a tracer sees."""

    def __init__(self) -> None:
        self.paused = False
        self._steps: list[Step] = []
        self._values: list[Tensor] = []
        self._shapes: list[torch.Size] = []
        self._numbers: dict[int, int] = {}
        self._constants: dict[int, Tensor] = {}

    def step(
        self,
        operator: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
        known: Known,
        answer: bool | None = None,
        choice: Choice | None = None,
    ) -> None:
        """Take down one operator that has just run."""
        if self.paused:
            return
        tensors = tensors_in((args, kwargs, out))
        self._constants |= {self.number(leaf): value for leaf in tensors if (value := known.value(leaf)) is not None}
        single = not isinstance(out, tuple | list)

        def to_value(tree: Any) -> Any:
            return map_tensors_in(lambda t: Value(self.number(t)), tree)

        given, named = to_value(args), to_value(kwargs)
        if torch.Tag.inplace_view in operator.tags:
            del self._numbers[id(out)]
        self._steps.append(
            Step(
                operator=operator,
                args=given,
                kwargs=named,
                outputs=tuple(
                    self.number(t) if isinstance(t, Tensor) else None for t in ((out,) if single else tuple(out))
                ),
                single=single,
                labels={self.number(leaf): known.label(leaf) for leaf in tensors},
                grad=torch.is_grad_enabled(),
                answer=answer,
                choice=choice,
            )
        )

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor; a new one if it was not met before."""
        number = self._numbers.get(id(tensor))
        if number is None:
            number = self._numbers[id(tensor)] = len(self._values)
            self._values.append(tensor)
            self._shapes.append(tensor.shape)
        return number

    def finish(self, inputs: list[Tensor], entries: dict[str, Tensor], outputs: Any) -> Recording:
        """The whole program."""
        return Recording(
            steps=tuple(self._steps),
            inputs=tuple(self.number(t) for t in inputs),
            entries={self.number(tensor): name for name, tensor in entries.items()},
            constants=dict(self._constants),
            outputs=plain(map_tensors(outputs, lambda t: Value(self.number(t))), Value),
            values=tuple(self._values),
            shapes=tuple(self._shapes),
        )


ATTENTION = F.scaled_dot_product_attention


class WholeAttention(TorchFunctionMode):
    """Records attention as the one operator people write, while its elementary operators are traced.

    Its default scale depends on the width of the heads; it is written out, so that it stays what it was. Functions of
    PyTorch that are written in Python (``multi_head_attention_forward``) reach a mode as a whole, which then does not
    see what they call: they find attention under its name, so the name is exchanged as well.
    """

    def __init__(self, recorder: Recorder, tracer: Any) -> None:
        super().__init__()
        self._recorder, self._tracer = recorder, tracer

    def __enter__(self) -> Self:
        """Exchange the name."""
        F.scaled_dot_product_attention = self._named
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *raised: Any) -> None:
        """Put it back."""
        F.scaled_dot_product_attention = ATTENTION
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Pass everything on, attention with the recorder held."""
        kwargs = dict(kwargs or {})
        return self._named(*args, **kwargs) if func is ATTENTION else func(*args, **kwargs)

    def _named(self, *args: Any, **kwargs: Any) -> Any:
        """Attention, recorded as a whole."""
        if self._recorder.paused:
            return ATTENTION(*args, **kwargs)
        given = dict(zip(("query", "key", "value", "attn_mask", "dropout_p", "is_causal"), args, strict=False)) | kwargs
        given = map_tensors_in(self._tracer.stand_in, given)
        self._recorder.paused = True
        try:
            out = ATTENTION(**given)
        finally:
            self._recorder.paused = False
        if given.get("scale") is None:
            given["scale"] = given["query"].size(-1) ** -0.5
        operands = tuple(given.pop(name) for name in ("query", "key", "value"))
        mask = (given.pop("attn_mask", None), given.pop("dropout_p", 0.0), given.pop("is_causal", False))
        operator = torch.ops.aten.scaled_dot_product_attention.default
        self._recorder.step(operator, (*operands, *mask), given, out, self._tracer)
        return out
