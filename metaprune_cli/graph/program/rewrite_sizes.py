"""How steps are rewritten that state sizes or groups, or meet constants: both become those of what is left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph.program.rewrite_moves import resized
from metaprune_cli.graph.program.rewriting import Rewriting, argument, first_output
from metaprune_cli.graph.program.survivors import Survivors
from metaprune_cli.graph.trace.record import Step, Value

aten = torch.ops.aten


def sizes(work: Rewriting, step: Step) -> Step:
    """view, expand: the sizes are those of the output."""
    out = work.of(step, step.outputs[0])
    given = list(step.args[1])
    lead = len(out) - len(given)
    sizes = [resized(size, out[lead + d]) for d, size in enumerate(given)]
    return replace(step, args=(step.args[0], sizes, *step.args[2:]))


def splits(work: Rewriting, step: Step) -> Step:
    """Uneven survivors need every part's own size."""
    dim = argument(step, 2, "dim", 0) % len(work.shape(step.args[0]))
    parts = [work.of(step, n)[dim] for n in step.outputs]
    if all(part is None for part in parts):
        return step
    sizes = [
        int(work.shape(n)[dim]) if part is None else int(part.sum())
        for n, part in zip(step.outputs, parts, strict=True)
    ]
    unsafe = step.operator.overloadpacket in (aten.unsafe_split, aten.unsafe_split_with_sizes)  # may be written to
    operator = aten.unsafe_split_with_sizes.default if unsafe else aten.split_with_sizes.default
    return replace(step, operator=operator, args=(step.args[0], sizes, dim), kwargs={})


def differentiable(_: Rewriting, step: Step) -> Step:
    """What was recorded where nothing wanted gradients, as the same that gives some."""
    return replace(step, operator=aten._embedding_bag.default)


def reads(_work: Rewriting, step: Step) -> Step:
    """A number in Python: nobody knows what becomes of it. A question has been answered in every way."""
    if step.answer is not None:
        return step
    raise NumericsError("A number that Python reads from a tensor cannot be recorded")


def strided(work: Rewriting, step: Step) -> Step:
    """as_strided: as it is, where no neurons are gone."""
    touched = [n for n in (*step.inputs(), *step.outputs) if n is not None]
    if any(stays is not None for n in touched for stays in work.of(step, n)):
        raise NumericsError("Strides are stated by numbers")
    return step


def relaid(work: Rewriting, step: Step) -> Step:
    """as_strided_ where units are gone was to the tensor's own shape: its strides do not matter."""
    if all(stays is None for stays in first_output(work, step)):
        return step
    return replace(step, operator=aten.alias.default, args=step.args[:1], kwargs={})


def normalised_shape(work: Rewriting, step: Step) -> Step:
    """native_layer_norm: the sizes of the last dimensions."""
    out = work.of(step, step.outputs[0])
    shape = list(step.args[1])
    shape = [resized(size, along) for size, along in zip(shape, out[len(out) - len(shape) :], strict=True)]
    return replace(step, args=(step.args[0], shape, *step.args[2:]))


def group_norm(work: Rewriting, step: Step) -> Step:
    """native_group_norm(input, weight, bias, N, C, HxW, groups, eps): the channels; every group keeps as many."""
    along = work.of(step, step.outputs[0])[1]
    if along is None:
        return step
    left = _per_group(along, step.args[6])
    return replace(step, args=(*step.args[:4], int(along.sum()), step.args[5], int((left > 0).sum()), *step.args[7:]))


def convolution(work: Rewriting, step: Step) -> Step:
    """convolution(…, groups): the groups that are left."""
    groups = step.args[8]
    along = work.of(step, step.args[0])[1]
    if groups == 1 or along is None:
        return step
    left = _per_group(along, groups)
    return replace(step, args=(*step.args[:8], int((left > 0).sum())))


def _per_group(along: Tensor, groups: int) -> Tensor:
    left = along.view(groups, -1).sum(1)
    if left[left > 0].unique().numel() > 1:
        raise NumericsError("Groups would keep different numbers of channels")
    return left


def aligned(work: Rewriting, step: Step) -> Step:
    """Elementwise: what has more positions than the result has left (a constant) is cut to them."""
    out = first_output(work, step)
    return replace(
        step,
        args=tuple(_cut_nest(work, step, arg, out) for arg in step.args),
        kwargs={name: _cut_nest(work, step, arg, out) for name, arg in step.kwargs.items()},
    )


def _cut_nest(work: Rewriting, step: Step, arg: Any, wanted: Survivors) -> Any:
    if isinstance(arg, Value):
        return work.cut(step, arg, wanted)
    if isinstance(arg, list | tuple):
        return type(arg)(_cut_nest(work, step, part, wanted) for part in arg)
    return arg


def product(work: Rewriting, step: Step) -> Step:
    """bmm and its kin: batch dimensions and the contracted ones of both sides."""
    first = 1 if len(step.args) > 2 else 0
    left, right = step.args[first], step.args[first + 1]
    a, b = work.of(step, left), work.of(step, right)
    if len(a) < 2 or len(b) < 2:
        return step
    inner, out = a[-1] if a[-1] is not None else b[-2], first_output(work, step)
    batch = [x if x is not None else y for x, y in zip(a[:-2], b[:-2], strict=True)]
    left = work.cut(step, left, (*batch, a[-2], inner))
    right = work.cut(step, right, (*batch, inner, b[-1]))
    bias = () if first == 0 else (work.cut(step, step.args[0], out),)
    return replace(step, args=(*bias, left, right, *step.args[first + 2 :]))


def attention(work: Rewriting, step: Step) -> Step:
    """scaled_dot_product_attention(query, key, value, mask, …): heads, and the mask's."""
    query, key, value, mask, *rest = step.args
    q, k, v, out = (work.of(step, t) for t in (query, key, value, step.outputs[0]))
    batch = out[:-2]
    inner = q[-1] if q[-1] is not None else k[-1]
    grouped = step.kwargs.get("enable_gqa", False)
    query = work.cut(step, query, (*batch, None, inner))
    if not grouped:
        key = work.cut(step, key, (*batch, None, inner))
        value = work.cut(step, value, (*batch, None, v[-1]))
    if mask is not None:
        mask = work.cut(step, mask, (*batch, None, None))
    return replace(step, args=(query, key, value, mask, *rest))


def joined(work: Rewriting, step: Step) -> Step:
    """cat, stack: constants among the parts are cut along the other dimensions."""
    out = list(first_output(work, step))
    dim = argument(step, 1, "dim", 0) % len(out)
    if step.operator.overloadpacket is aten.stack:
        del out[dim]
    else:
        out[dim] = None
    return replace(step, args=([work.cut(step, part, out) for part in step.args[0]], *step.args[1:]))
