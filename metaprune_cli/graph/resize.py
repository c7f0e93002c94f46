"""Give a module's parameters other shapes and bring its attributes in line: how every pruned model is built again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.weight_norm import WeightNorm

from metaprune_cli.errors import InputError

Attributes = Callable[[Any], None]
_REGISTRY: dict[type[nn.Module], Attributes] = {}
_GATES = {"LSTM": 4, "GRU": 3}


def register_attributes(kind: type[nn.Module]) -> Callable[[Attributes], Attributes]:
    """Register a function that brings a module's attributes in line with its parameters' new shapes.

    It is called on modules of ``kind`` (and its subclasses, unless these have their own) after their own parameters
    were replaced; it reads the shapes and the old attributes and sets the new ones.
    """

    def add(function: Attributes) -> Attributes:
        _REGISTRY[kind] = function
        return function

    return add


def hollow_copy(module: nn.Module) -> nn.Module:
    """A copy to be filled (:func:`fill_`): its state-dict entries are on meta, everything else is copied."""
    memo: dict[int, Any] = {}
    for tensor in module.state_dict(keep_vars=True).values():
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
    return copied(module, memo)


def resize_(module: nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Replace, in place, every parameter and buffer whose shape differs from ``shapes`` by an empty one.

    Args:
        module: the model, on any device.
        shapes: state-dict entry -> shape; entries that are not named keep theirs.

    Raises:
        InputError: entries that the module does not have, or of another number of dimensions; all of them are listed.
    """
    own = module.state_dict(keep_vars=True)
    problems = [f"{name}: not in the model" for name in shapes if name not in own]
    problems += [
        f"{name}: {len(shapes[name])} dimensions, the model has {own[name].dim()}"
        for name in shapes
        if name in own and len(shapes[name]) != own[name].dim()
    ]
    if problems:
        raise InputError("The shapes do not fit the model", got="; ".join(problems[:10]), expected="the entries it has")
    changed: dict[str, nn.Module] = {}
    shared: dict[int, Tensor] = {}
    for name, shape in shapes.items():
        if tuple(own[name].shape) != tuple(shape):
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            _replace(owner, leaf, own[name], tuple(shape), shared)
            changed |= {whose: module.get_submodule(whose) for whose in _whose(path)}
    for owner in changed.values():
        _bring_in_line(owner)


def _whose(path: str) -> list[str]:
    """The modules whose attributes follow an entry of the module at ``path``."""
    before, parametrized, _ = f".{path}".partition(".parametrizations.")
    return [path, before.removeprefix(".")] if parametrized else [path]


class Elastic:
    """A copy of a module that takes the state dicts of one size after the other, and whose attributes follow.

    The tensors need not be parameters: gradients flow through the module to whatever they were computed from.
    """

    def __init__(self, module: nn.Module) -> None:
        """Prepare the copy, which is hollow; ``module`` is not changed."""
        self.module = hollow_copy(module)
        modules = dict(self.module.named_modules())
        self._attributes = [
            (owner.__dict__, {name: value for name, value in vars(owner).items() if type(value) in (int, tuple)})
            for owner in modules.values()
        ]
        self._places: list[tuple[str, torch.Size, dict[str, Any], str, list[nn.Module]]] = []
        for name, entry in self.module.state_dict(keep_vars=True).items():
            path, _, leaf = name.rpartition(".")
            held: dict[str, Any] = modules[path].__dict__["_parameters"]
            held = held if leaf in held else modules[path].__dict__["_buffers"]
            self._places.append((name, entry.shape, held, leaf, [modules[whose] for whose in _whose(path)]))
        self._device = torch.device("cpu")

    def fill_(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Put a whole state dict in, in place and without copying; the module holds it until the next.

        Raises:
            InputError: attributes cannot be brought in line with the shapes.
        """
        for attributes, whole in self._attributes:
            attributes.update(whole)
        changed: dict[int, nn.Module] = {}
        for name, shape, held, leaf, owners in self._places:
            tensor = tensors[name]
            held[leaf] = tensor
            if tensor.shape != shape:
                changed.update((id(owner), owner) for owner in owners)
        for owner in changed.values():
            _bring_in_line(owner)
        self._follow_(next(iter(tensors.values())).device if tensors else self._device)
        return self.module

    def _follow_(self, device: torch.device) -> None:
        """Buffers that are no entries travel too."""
        if device == self._device:
            return
        for owner in self.module.modules():
            for name in owner._non_persistent_buffers_set:
                buffer = owner._buffers[name]
                owner._buffers[name] = None if buffer is None else buffer.to(device)
        self._device = device


def _bring_in_line(owner: nn.Module) -> None:
    try:
        _recompute(owner)
        kind = next((kind for kind in type(owner).__mro__ if kind in _REGISTRY), None)
        if kind is not None:
            _REGISTRY[kind](owner)
    except (RuntimeError, AttributeError) as error:
        raise InputError(
            f"The attributes of a {type(owner).__name__} cannot be brought in line with its new shapes",
            got=f"{type(error).__name__}: {error}"[:300],
            expected="parameters from which its weights and sizes can be computed",
        ) from error


def copied(module: nn.Module, instead: Mapping[int, Any] | None = None) -> nn.Module:
    """A deep copy; tensors that hooks have computed (an old weight norm's), which deepcopy refuses, as values.

    Args:
        module: any.
        instead: what to put in the place of objects, by their ``id``.
    """
    memo = dict(instead or {})
    for value in (value for owner in module.modules() for value in vars(owner).values()):
        if id(value) in memo:
            continue
        if isinstance(value, Tensor) and not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        elif type(value) in (dict, OrderedDict, set) and not value:  # a dozen in every module, slow to copy otherwise
            memo[id(value)] = value.copy()
    return copy.deepcopy(module, memo)


def own_copies(tensors: Mapping[str, Tensor], originals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those that are still ``originals`` themselves copied."""
    shared = {id(tensor) for tensor in originals.values()}
    return {name: tensor.clone() if id(tensor) in shared else tensor for name, tensor in tensors.items()}


def fill_(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Assign a full state dict of fitting shapes, in place and without copying.

    ``requires_grad`` stays, and tensors that are shared stay shared.

    Raises:
        InputError: entries are missing or unexpected; all of them are listed.
    """
    own = module.state_dict(keep_vars=True)
    if different := sorted(own.keys() ^ tensors.keys()):
        raise InputError(
            "The tensors are not those of the model", got=", ".join(different[:10]), expected="its entries"
        )
    new: dict[int, Tensor] = {}
    for name, old in own.items():
        if id(old) not in new:
            is_parameter = isinstance(old, nn.Parameter)
            new[id(old)] = nn.Parameter(tensors[name], old.requires_grad) if is_parameter else tensors[name]
    own.update({name: new[id(old)] for name, old in own.items()})  # in place: keeps the modules' versions
    module.load_state_dict(own, assign=True)


def _replace(owner: nn.Module, leaf: str, old: Tensor, shape: tuple[int, ...], shared: dict[int, Tensor]) -> None:
    new = shared.get(id(old))
    if new is None:
        new = torch.empty(shape, dtype=old.dtype, device=old.device)
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        shared[id(old)] = new
    setattr(owner, leaf, new)


def _recompute(module: nn.Module) -> None:
    """Weights that hooks compute before every forward pass have their new shapes at once."""
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            setattr(module, hook.name, hook.compute_weight(module).detach())


@register_attributes(_ConvNd)
def _convolution(module: Any) -> None:
    """Groups stay, unless they were one channel wide (depthwise): then they go with the channels."""
    weight, groups = module.weight, module.groups
    transposed = isinstance(module, _ConvTransposeNd)
    if groups > 1 and groups == module.in_channels:
        groups = weight.size(0) if transposed else weight.size(0) // (module.out_channels // groups)
    rows, columns = weight.size(0), weight.size(1) * groups
    module.groups = groups
    module.in_channels, module.out_channels = (rows, columns) if transposed else (columns, rows)


@register_attributes(nn.Linear)
def _linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


@register_attributes(nn.Bilinear)
def _bilinear(module: Any) -> None:
    module.out_features, module.in1_features, module.in2_features = module.weight.shape


@register_attributes(_NormBase)
def _batch_norm(module: Any) -> None:
    module.num_features = next(t for t in (module.weight, module.running_mean) if t is not None).numel()


@register_attributes(nn.LayerNorm)
def _layer_norm(module: Any) -> None:
    module.normalized_shape = tuple(module.weight.shape)


@register_attributes(nn.RMSNorm)
def _rms_norm(module: Any) -> None:
    module.normalized_shape = tuple(module.weight.shape)


@register_attributes(nn.GroupNorm)
def _group_norm(module: Any) -> None:
    module.num_channels = module.weight.numel()


@register_attributes(nn.Embedding)
def _embedding(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


@register_attributes(nn.EmbeddingBag)
def _embedding_bag(module: Any) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


@register_attributes(nn.RNNBase)
def _recurrent(module: Any) -> None:
    """All layers and directions have one hidden size; with a projection, it is the cell's, not the state's."""
    module.hidden_size = module.weight_ih_l0.size(0) // _GATES.get(module.mode, 1)
    module.input_size = module.weight_ih_l0.size(1)
    if module.proj_size:
        module.proj_size = module.weight_hr_l0.size(0)
        if module.proj_size >= module.hidden_size:
            raise RuntimeError(f"a projection to {module.proj_size} of {module.hidden_size} must be smaller")


@register_attributes(nn.RNNCellBase)
def _recurrent_cell(module: Any) -> None:
    module.hidden_size, module.input_size = module.weight_hh.size(1), module.weight_ih.size(1)


@register_attributes(nn.PReLU)
def _prelu(module: Any) -> None:
    module.num_parameters = module.weight.numel()
