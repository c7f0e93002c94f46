"""A network whose weights are generated: a module like any other, which any loop can train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from metaprune_cli.config import DhpSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.slicing import masks
from metaprune_cli.graph.structure import EdgeBlock, Feature, owners_of
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.graph.units import Units
from metaprune_cli.methods.dhp.entries import GeneratedEntry
from metaprune_cli.methods.dhp.kernels import Compact, Embedded
from metaprune_cli.metrics.calling import call
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning.criteria import unit_scores

T = TypeVar("T")

LEAST = 1e-2
"""Of the latents that training begins with: weights are divided by them."""


class Generated(nn.Module):
    """A network with one latent number for every unit, of which its weights are made in every forward pass.

    A neuron's latent ζ is that of its unit, z; on a grid of attention heads that of its column times that of its row.
    The weights of every block of edges come from the latents at their two ends (see ``kernels``). Norms, biases and
    what cannot be exchanged in a forward pass are parameters as before.

    Units that are removed (``remove_``) count as zeros from then on, whatever is trained, until the network is
    converted: what they own is zero in the forward pass, or set to zero (``silence_``) where it is not generated.

    Attributes:
        network: what runs; the generated entries are not among its parameters.
        entries: what generates them.
        latents: z, shape (units,).
        order: int64, shape (units,): in which order units were removed, from 0; -1: not.
        steps: int64, how many steps were taken; ``reached``: how many targets have been met (see ``shrinking``).
    """

    latents: nn.Parameter
    order: Tensor
    steps: Tensor
    reached: Tensor

    def __init__(
        self,
        network: nn.Module,
        graph: NeuronGraph,
        example_inputs: ExampleInputs,
        settings: DhpSettings,
        *,
        trained: bool,
        seed: int = 0,
    ) -> None:
        """Begin with a network's own weights.

        Args:
            network: not changed.
            graph: of it.
            example_inputs: what the graph was traced with.
            settings: the size of the embedding, and with ``trained`` where the latents begin.
            trained: generate the very weights of ``network`` (to rounding); else the latents are drawn from N(0, 1), as
                published, and the weights are P, so that weights drawn by the usual rules keep their size.
            seed: of what is drawn.

        Raises:
            InputError: the network does not run with exchanged weights, or none can be.
        """
        super().__init__()
        graph = graph.with_tensors(network.state_dict())
        hollow = {name: torch.empty_like(tensor, device="meta") for name, tensor in graph.tensors.items()}
        self._graph = Unchanging(graph.with_tensors(hollow))
        names = _exchangeable(network, graph, example_inputs)
        drawn = torch.Generator().manual_seed(seed)
        first = graph.tensors[names[0]]
        units = graph.units
        begun = _magnitudes(graph, settings.power) if trained else torch.randn(units.num_units, generator=drawn)
        self.latents = nn.Parameter(begun.to(first))
        for name, ids in _wiring(units).items():
            self.register_buffer(name, ids.to(first.device), persistent=False)
        self.register_buffer("order", torch.full((units.num_units,), -1, device=first.device))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=first.device))
        self.register_buffer("reached", torch.zeros((), dtype=torch.int64, device=first.device))

        def form(slope: Tensor) -> Compact | Embedded:
            return Embedded(slope, settings.embedding, drawn) if settings.embedding else Compact(slope)

        blocks, latents = owners_of(graph.blocks, ()), self.neuron_latents().detach()
        self.entries = nn.ModuleList(
            GeneratedEntry(
                [name, *(alias for alias, first in graph.aliases.items() if first == name)],
                blocks[name][0],
                units,
                graph.tensors[name],
                latents,
                form,
                trained=trained,
            )
            for name in names
        )
        self.network = _without(network, [name for entry in self._entries for name in entry.names])
        self._lost: tuple[Tensor, int, _Lost] | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns with the generated weights."""
        return functional_call(self.network, self.generated(), args, kwargs, tie_weights=False)

    def generated(self) -> dict[str, Tensor]:
        """The generated entries, by all of their names; differentiable."""
        latents, lost = self.neuron_latents(), self._lost_now().edges
        found = {}
        for number, entry in enumerate(self._entries):
            tensor = entry(latents, lost[number])
            found.update(dict.fromkeys(entry.names, tensor))
        return found

    def neuron_latents(self) -> Float[Tensor, " neurons"]:
        """ζ of every neuron."""
        one = torch.cat([self.latents, self.latents.new_ones(1)])
        found = one.index_select(0, self.get_buffer("unit_of"))
        return found * one.index_select(0, self.get_buffer("row_of")) if "row_of" in self._buffers else found

    @property
    def kept(self) -> Bool[Tensor, " units"]:
        """Which units are not removed, on the CPU."""
        return (self.order < 0).cpu()

    def scores(self) -> Float[Tensor, " units"]:
        """|z| on the CPU; of removed units less than 0, and the less the earlier they went."""
        order = self.order.cpu()
        return torch.where(order < 0, self.latents.detach().abs().cpu().float(), (order - len(order)).float())

    @torch.no_grad()
    def shrink_(self, amount: float, units: Bool[Tensor, " units"]) -> None:
        """The proximal step of amount · |z| on certain units: z ← sign(z) · max(|z| − amount, 0)."""
        shrunk = self.latents.sign() * (self.latents.abs() - amount).clamp_min(0)
        self.latents.copy_(torch.where(units.to(self.latents.device), shrunk, self.latents))

    @torch.no_grad()
    def remove_(self, kept: Bool[Tensor, " units"]) -> None:
        """Remove, besides what is removed already, all but ``kept``: of those the smallest latents count as first."""
        now = self.kept
        gone = (now & ~kept).nonzero().flatten()
        if gone.numel():
            gone = gone[self.latents.detach().abs().cpu()[gone].argsort(stable=True)]
            places = int((~now).sum()) + torch.arange(gone.numel())
            self.order[gone.to(self.order.device)] = places.to(self.order.device)
            self.silence_()

    @torch.no_grad()
    def silence_(self) -> None:
        """Set to zero what removed units own and is not generated: optimisers and averages move it."""
        lost = self._lost_now().plain
        own = dict(self.network.named_parameters()) if lost else {}
        for name, gone in lost.items():
            own[name].masked_fill_(gone, 0)

    @torch.no_grad()
    def state(self) -> dict[str, Tensor]:
        """The state dict of the network with its weights as they are now, on the CPU."""
        self.silence_()
        own = self.network.state_dict() | self.generated()
        return {name: own[name].detach().cpu().clone() for name in self._graph.value.tensors}

    @property
    def _entries(self) -> Iterator[GeneratedEntry]:
        return (entry for entry in self.entries if isinstance(entry, GeneratedEntry))

    def _lost_now(self) -> _Lost:
        """What the removed units own; found anew where they changed, by whatever wrote to ``order``."""
        order, version = self.order, self.order._version
        if self._lost is None or self._lost[0] is not order or self._lost[1] != version:
            with torch.inference_mode(False), torch.no_grad():
                self._lost = order, version, self._find_lost()
        return self._lost[2]

    def _find_lost(self) -> _Lost:
        graph, kept, device = self._graph.value, self.kept, self.latents.device
        if bool(kept.all()):
            return _Lost([[None for _ in entry.blocks] for entry in self._entries], {})
        alive = graph.units.alive(kept).to(device)
        edges = [entry.lost(alive) for entry in self._entries]
        parameters = {name for name, _ in self.network.named_parameters()}
        own = {name: ~mask for name, mask in masks(graph, kept).items() if name in parameters}
        for name in filter(partial(_makes_another, self.network), list(own)):
            own[name] = _lost_inputs(own[name].shape, owners_of(graph.blocks, graph.features)[name], alive.cpu())
        return _Lost(edges, {name: gone.to(device) for name, gone in own.items()})


class _Lost:
    """What removed units own.

    Attributes:
        edges: of every generated entry and each of its blocks, which edges; None: none.
        plain: of the network's own parameters, which elements.
    """

    def __init__(self, edges: list[list[Tensor | None]], plain: Mapping[str, Tensor]) -> None:
        self.edges, self.plain = edges, plain


class Unchanging(Generic[T]):
    """A value that the copies of its owner share: it does not change, and to copy it would take long."""

    def __init__(self, value: T) -> None:
        self.value = value

    def __deepcopy__(self, _: object) -> Unchanging[T]:
        return self


def _wiring(units: Units) -> dict[str, Tensor]:
    """The unit of every neuron's column, and where there are grids that of its row: one past the last for none."""
    if not units.on_grid.numel():
        return {"unit_of": units.unit_of}
    row_of = torch.full_like(units.unit_of, units.num_units)
    row_of[units.on_grid] = units.row_of[units.on_grid]
    return {"unit_of": units.unit_of, "row_of": row_of}


def _magnitudes(graph: NeuronGraph, power: float) -> Float[Tensor, " units"]:
    """Latents in the order of ``group-l2``: of units that may go a power of their score, of others 1."""
    scores = unit_scores(graph, graph.tensors, "group-l2").float()
    return torch.where(graph.units.prunable, scores.clamp_min(0) ** power, 1.0).clamp_min(LEAST)


def _exchangeable(network: nn.Module, graph: NeuronGraph, example_inputs: ExampleInputs) -> list[str]:
    """The entries that are edges alone, and that a forward pass takes from where they can be exchanged.

    Not from anywhere else, as recurrent layers do, and not to compute a weight from (weight norm).
    """
    guard_convolutions()
    parameters = dict(network.named_parameters())
    names = [
        name
        for name, (blocks, features) in owners_of(graph.blocks, graph.features).items()
        if not features
        and sum(block.num_edges * block.size[3] for block in blocks) == graph.tensors[name].numel()
        and name in graph.trainable
        and name in parameters
        and parameters[name].requires_grad
        and not _makes_another(network, name)
    ]
    given = {name: graph.tensors[name].detach().clone().requires_grad_() for name in names}
    known = given | {alias: given[name] for alias, name in graph.aliases.items() if name in given}
    trial = copied(network).eval()
    try:
        with torch.enable_grad():
            output = functional_call(trial, known, *_arguments(example_inputs), tie_weights=False)
            sums = [tensor.float().sum() for tensor in leaves(output, Tensor) if tensor.requires_grad]
            found = (
                torch.autograd.grad(torch.stack(sums).sum(), list(given.values()), allow_unused=True) if names else ()
            )
    except Exception as error:
        raise InputError(
            "The model does not run with generated weights.",
            got=f"{type(error).__name__}: {error}".splitlines()[0][:300],
            next_step="prune it with metaprune prune",
        ) from error
    taken = [name for name, gradient in zip(names, found, strict=True) if gradient is not None]
    if not taken:
        raise InputError(
            "The model has no weights that can be generated.",
            expected="convolutions or linear layers whose weights are trained",
            next_step="prune it with metaprune prune",
        )
    return taken


def _makes_another(network: nn.Module, name: str) -> bool:
    """Whether another weight is computed from this parameter, by a parametrisation or, as in the past, by a hook."""
    owner, _, leaf = name.rpartition(".")
    module = network.get_submodule(owner)
    hooks = {getattr(hook, "name", None) for hook in module._forward_pre_hooks.values()}
    return isinstance(module, nn.utils.parametrize.ParametrizationList) or leaf.rpartition("_")[0] in hooks


def _lost_inputs(
    shape: torch.Size, owners: tuple[list[EdgeBlock], list[Feature]], alive: Bool[Tensor, " neurons"]
) -> Tensor:
    """Which elements meet neurons that are gone, but not those of whole rows: they are divided by their length."""
    lost = torch.zeros(shape.numel(), dtype=torch.bool)
    blocks, features = owners
    for block in blocks:
        region = lost.as_strided(block.size, block.stride, block.offset)
        region |= ~alive[block.sources][:, None, :, None]
    for feature in features:
        lost[feature.elements] |= ~alive[feature.neurons]
    return lost.view(shape)


def _arguments(inputs: ExampleInputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    taken: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    call(lambda *args, **kwargs: taken.append((args, kwargs)), inputs)
    return taken[0]


def _without(network: nn.Module, names: list[str]) -> nn.Module:
    """A copy in which these parameters are no parameters: something empty holds their places."""
    small = copied(network)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = small.get_submodule(owner)
        like = module._parameters.pop(leaf)
        assert like is not None
        module.register_buffer(leaf, torch.empty(0, dtype=like.dtype, device=like.device), persistent=False)
    return small
