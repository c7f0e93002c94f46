"""Operators whose kernels trust their arguments, as functions that do not: a program may come from anybody's file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.errors import InputError

aten = torch.ops.aten
_CELLS = 4096
"""How far outside its feature map, in cells, a box may begin or end: torchvision counts samples in 32 bits."""


Guard = Callable[[Any, Callable[..., Any]], Callable[..., Any]]
"""What to call instead, of an overload and what calls it."""


def checked(prepare: Callable[..., dict[str, Any]], only: str = "") -> Guard:
    """Pass the arguments, by name, through ``prepare`` first; of overloads that have an argument called ``only``."""

    def guard(operator: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        names = [argument.name for argument in operator._schema.arguments]

        def run(*args: Any, **kwargs: Any) -> Any:
            return call(**prepare(**dict(zip(names, args, strict=False)), **kwargs))

        return run if not only or only in names else call

    return guard


def instead(make: Callable[..., Any]) -> Guard:
    """Call something else."""
    return lambda _operator, _call: make


def _refuse(what: str) -> None:
    raise InputError(f"The program cannot run: {what}.", next_step="the file is damaged, or was not made by metaprune")


def batch_norm(_operator: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    """Statistics, weights and biases are as many as the channels; the kernels read and write that many."""

    def run(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        channels = tensor.shape[1]
        for part in args[:4] if not kwargs else (*args[:4], *kwargs.values()):
            if isinstance(part, Tensor) and part.numel() != channels:
                _refuse(f"a BatchNorm over {channels} channels has statistics or weights for {part.numel()}")
        return call(tensor, *args, **kwargs)

    return run


def _relaid(**given: Any) -> dict[str, Any]:
    """``as_strided_`` as global pooling calls it: to the tensor's own shape and within its own elements."""
    tensor, size, stride, offset = given["self"], given["size"], given["stride"], given.get("storage_offset")
    reach = sum((n - 1) * step for n, step in zip(size, stride, strict=False)) + 1
    if tuple(size) != tuple(tensor.shape) or len(size) != len(stride) or offset not in (None, tensor.storage_offset()):
        _refuse("as_strided_ changes a tensor's shape")
    if any(step < 0 for step in stride) or reach > tensor.numel():
        _refuse("as_strided_ leaves the memory of its tensor")
    return given


def _real_from_complex(**given: Any) -> dict[str, Any]:
    """The length of a real signal has to be that of its spectrum."""
    tensor, length = _transformed(**given)["self"], given["last_dim_size"]
    if not given["dim"] or tensor.shape[given["dim"][-1]] != length // 2 + 1 or length < 1:
        _refuse(f"a spectrum of shape {tuple(tensor.shape)} is none of a signal of length {length}")
    return given


def _transformed(**given: Any) -> dict[str, Any]:
    dims = [dim % max(given["self"].dim(), 1) for dim in given["dim"]]
    if len(set(dims)) < len(dims) or not all(-given["self"].dim() <= d < given["self"].dim() for d in given["dim"]):
        _refuse(f"a Fourier transform along the dimensions {given['dim']} of a tensor of {given['self'].dim()}")
    return given


def _weight_norm(**given: Any) -> dict[str, Any]:
    """A gain for each slice along the dimension, which is the first or the last."""
    direction, gain, dim = given["v"], given["g"], given.get("dim", 0)
    if dim not in (0, direction.dim() - 1) or gain.numel() != direction.shape[dim]:
        _refuse(f"a weight norm along {dim} of {tuple(direction.shape)} has gains of shape {tuple(gain.shape)}")
    return given


def _noisy(**given: Any) -> dict[str, Any]:
    if given["noise"].shape != given["self"].shape:
        _refuse("the noise of a leaky ReLU has another shape than its input")
    return given


def _boxes(**given: Any) -> dict[str, Any]:
    """Boxes (image, left, top, right, bottom) of images that are there, with finite corners not far from the map."""
    boxes, extent = given["rois"], max(given["input"].shape[-2:])
    limit = (extent + _CELLS) / max(abs(given["spatial_scale"]), 1e-6)
    corners = boxes[:, 1:].nan_to_num().clamp(-limit, limit)
    return {**given, "rois": torch.cat([boxes[:, :1].nan_to_num().clamp(0, given["input"].shape[0] - 1), corners], 1)}


def _deformed(**given: Any) -> dict[str, Any]:
    """Offsets that are numbers."""
    return {**given, "offset": given["offset"].nan_to_num()}


def _bags(**given: Any) -> dict[str, Any]:
    """Bags begin one after the other, within the indices."""
    offsets, count = given["offsets"], given["indices"].shape[0]
    return {**given, "offsets": offsets.clamp(0, count).cummax(0).values if offsets.numel() else offsets}


def _grouped(**given: Any) -> dict[str, Any]:
    """Rows (n, in) for the matrices (experts, in, out), one expert after the other; no row is left over and unset."""
    rows, offsets = given["self"].shape[0], given.get("offs")
    dims, groups = (given["self"].dim(), given["mat2"].dim()), given["mat2"].shape[:1]
    if dims != (2, 3) or not isinstance(offsets, Tensor) or offsets.shape != groups:
        _refuse("a grouped product is not one of rows with a matrix for each group")
    assert offsets is not None
    ends = [offsets[:-1].clamp(0, rows).cummax(0).values, torch.full_like(offsets[-1:], rows)]
    return {**given, "offs": torch.cat(ends)}


def _attention(**given: Any) -> dict[str, Any]:
    """As many keys as values: fused kernels count one of the two."""
    if given["key"].shape[-2] != given["value"].shape[-2]:
        _refuse("an attention has another number of keys than of values")
    return given


def _resampled(**given: Any) -> dict[str, Any]:
    """Scales that turn positions into positions; the kernels convert them to integers unseen."""
    for scale in (thing for thing in given.values() if isinstance(thing, float)):
        if not _SCALES[0] < scale < _SCALES[1]:
            _refuse(f"it resamples by a factor of {scale}")
    return given


def _quotient(**given: Any) -> dict[str, Any]:
    """The lowest integer over -1 is a quotient that the processor refuses with a signal; here it stays what it is."""
    whole, by = given["self"], given["other"]
    if given.get("rounding_mode") != "trunc" or whole.dtype not in _INTEGERS:
        return given
    if isinstance(by, Tensor):
        by = torch.where((by == -1) & (whole == torch.iinfo(whole.dtype).min), 1, by)
        return {**given, "other": by}
    return {**given, "rounding_mode": "floor"} if by == -1 else given


_INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)
_SCALES = (1e-6, 1e6)


def _without_format(make: Callable[..., Any]) -> Callable[..., Any]:
    def run(size: Sequence[Any], **kwargs: Any) -> Any:
        format_ = kwargs.pop("memory_format", None)
        made: Tensor = make(size, **kwargs)
        return made if format_ is None else made.contiguous(memory_format=format_)

    return run


relaid = checked(_relaid)
real_from_complex = checked(_real_from_complex)
transformed = checked(_transformed)
weight_norm = checked(_weight_norm)
noisy = checked(_noisy)
boxes = checked(_boxes)
deformed = checked(_deformed)
bags = checked(_bags)
grouped = checked(_grouped)
attention = checked(_attention)
resampled = checked(_resampled)
quotient = checked(_quotient, only="rounding_mode")
empty = instead(_without_format(aten.zeros.default))
empty_like = instead(aten.zeros_like.default)
new_empty = instead(aten.new_zeros.default)
"""Memory that nobody has written yet is zero, rather than what another tensor left there."""
