"""PruningNets in files: artifacts of kind ``hypernetwork``, checked against the model they are of."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.artifacts import Artifact, join_aliases, split_aliases
from metaprune_cli.artifacts.schemas.check import refuse
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph import NeuronGraph, encode
from metaprune_cli.graph.units import Units
from metaprune_cli.methods.base import Proposal
from metaprune_cli.methods.pruning_net.generator import Generator
from metaprune_cli.methods.pruning_net.network import GeneratedWeights, PruningNet, PruningNetConfig
from metaprune_cli.methods.pruning_net.sampling import Sampler
from metaprune_cli.models import Architecture
from metaprune_cli.models.assemble import assemble
from metaprune_cli.models.examples import example_inputs
from metaprune_cli.places import check_readable
from metaprune_cli.pruning.cost import Cost
from metaprune_cli.pruning.crops import Crops
from metaprune_cli.pruning.targets import Target
from metaprune_cli.pruning.width_space import WidthSpace

KIND = "hypernetwork"
_BASE, _GENERATOR, _ORDER = "base/", "generator/", "order/"


def to_parts(net: PruningNet) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and the fields of the document that are the PruningNet's own; the architecture is not."""
    entries, aliases = split_aliases(net.base.state_dict())
    tensors = {f"{_BASE}{name}": tensor for name, tensor in entries.items()}
    tensors |= {f"{_GENERATOR}{name}": tensor for name, tensor in net.generator.state_dict().items()}
    tensors |= {f"{_ORDER}{gene}": order.contiguous() for gene, order in enumerate(net.space.order)}
    space, sampler = net.space, net.sampler
    document = {
        "method": "pruning-net",
        "config": asdict(net.config),
        "sampling": {"how": sampler.how, "speedup_max": sampler.speedup_max},
        "route": net.crops.route,
        "genes": [
            {"families": list(families), "grid": list(grid)}
            for families, grid in zip(space.families, space.grids, strict=True)
        ],
        "signature": [{"name": name, "units": units} for name, units in space.units.signature],
        "aliases": aliases,
    }
    return tensors, document


def from_artifact(artifact: Artifact, *, allow_import: bool) -> PruningNet:
    """The PruningNet of a file, in eval mode; its model is built and traced anew.

    Raises:
        CorruptFileError: the file's parts do not fit each other.
        InputError: its tensors are not those of the architecture, or a factory would have to be imported.
    """
    document, where = artifact.document, artifact.path
    architecture = Architecture.from_document(document["architecture"])
    model = assemble(
        architecture,
        join_aliases(_below(_BASE, artifact.tensors), document.get("aliases", {})),
        where,
        allow_import,
        document.get("widths", {}),
    )
    inputs = example_inputs(architecture, model)
    graph = encode(model, inputs)
    config = PruningNetConfig(**document["config"])
    learnt, orders = _below(_GENERATOR, artifact.tensors), _below(_ORDER, artifact.tensors)
    refuse([*_unlike_units(document, orders, graph.units), *_unlike_generator(graph, config, learnt)], KIND, where)
    space = WidthSpace(
        graph.units,
        tuple(tuple(gene["families"]) for gene in document["genes"]),
        tuple(tuple(gene["grid"]) for gene in document["genes"]),
        tuple(orders[str(gene)] for gene in range(len(orders))),
    )
    try:
        crops = Crops.of(model, graph, inputs, document["route"], probes=[space.kept(space.smallest())])
    except MetapruneError as error:
        refuse([f"genes: expected widths that the model can have, got {error.details['got']}"], KIND, where)
        raise
    net = PruningNet(model, graph, crops, Sampler(space, Cost.of(graph), **document["sampling"]), config)
    net.generator.load_state_dict(learnt)
    return net.eval()


def check_structure(net: PruningNet, graph: NeuronGraph, where: object) -> None:
    """Make sure that a PruningNet is of a graph's structure.

    Raises:
        InputError: it is of another.
    """
    own, other = net.space.units.signature, graph.units.signature
    if own != other:
        differing = [f"{a} and {b}" for a, b in zip(own, other, strict=False) if a != b][:5]
        raise InputError(
            "The PruningNet was made for a model of a different structure.",
            expected=f"{len(own)} families of units as in the PruningNet",
            got="; ".join(differing) or f"{len(other)} families",
            where=where,
            next_step="train one for this structure: metaprune pruning-net",
        )


@dataclass(frozen=True, eq=False)
class Generated:
    """A PruningNet at work: it proposes the weights of the whole model."""

    net: PruningNet

    @cached_property
    def model(self) -> nn.Module:
        """The network at its whole widths, with the weights for these; its BatchNorms are to be measured anew."""
        whole = copy.deepcopy(self.net.base)
        whole.load_state_dict(self._whole())
        return whole.eval()

    @property
    def weights(self) -> GeneratedWeights:
        """Those for any widths."""
        return self.net.weights

    @property
    def reads_images(self) -> bool:
        """It has seen all that it needs."""
        return False

    def propose(self, graph: NeuronGraph, target: Target | None = None) -> Proposal:  # noqa: ARG002 - for any target
        """Weights for all units; those for other widths are the net's own to generate.

        Raises:
            InputError: the model is of another structure.
        """
        check_structure(self.net, graph, None)
        return Proposal(self._whole())

    @torch.no_grad()
    def _whole(self) -> dict[str, Tensor]:
        return self.net.generate(self.net.space.kept(self.net.space.whole()))


class PruningNets:
    """Files of kind ``hypernetwork``."""

    def shipped(self) -> list[str]:
        """None comes with the package: each is of one architecture."""
        return []

    def find(self, given: str | Path) -> Path:
        """The file that is meant."""
        check_readable(Path(given))
        return Path(given)

    def open(self, artifact: Artifact) -> Generated:
        """The PruningNet of a file, of an architecture that need not be imported."""
        return Generated(from_artifact(artifact, allow_import=False))

    def facts(self, artifact: Artifact) -> dict[str, Any]:
        """Its form and sizes."""
        config = artifact.document["config"]
        return {
            "generator": config["generator"],
            "hidden": config["hidden"],
            "genes": len(artifact.document["genes"]),
        }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _unlike_units(document: Mapping[str, Any], orders: Mapping[str, Tensor], units: Units) -> Iterator[str]:
    """How genes and orders differ from the units that the model has."""
    if [(family["name"], family["units"]) for family in document["signature"]] != list(units.signature):
        yield f"signature: expected the {len(units.families)} families that its model has, got others"
        return
    if orders.keys() != {str(gene) for gene in range(len(document["genes"]))}:
        yield f"order: expected one tensor for each of {len(document['genes'])} genes, got {len(orders)}"
        return
    met: set[int] = set()
    for number, gene in enumerate(document["genes"]):
        families, order = gene["families"], orders[str(number)]
        if met & set(families) or len(set(families)) < len(families) or max(families) >= len(units.families):
            yield f"genes.{number}: expected families that the model has, each in one gene, got {families[:5]}"
            continue
        met |= set(families)
        own = torch.stack([units.families[family].units for family in families]) if _alike(families, units) else None
        if own is None or order.dtype != torch.int64 or order.shape != own.shape:
            yield f"order/{number}: expected the units of its families, got {order.dtype} {list(order.shape)}"
        elif not torch.equal(order.sort(1).values, own.sort(1).values):
            yield f"order/{number}: expected every unit of its families once"
        elif gene["grid"][-1] > own.size(1):
            yield f"genes.{number}.grid: expected at most {own.size(1)} units, got {gene['grid'][-1]}"
        else:
            free = units.prunable[order]
            stuck = int((~free.all(0)).nonzero().max()) + 1 if not bool(free.all()) else 1
            if gene["grid"][0] < stuck:
                yield f"genes.{number}.grid: expected at least {stuck} units, got {gene['grid'][0]}"


def _alike(families: list[int], units: Units) -> bool:
    return len({len(units.families[family].units) for family in families}) == 1


def _unlike_generator(graph: NeuronGraph, config: PruningNetConfig, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """How parameters differ from those of the generator; nothing of its size is allocated before."""
    meta = torch.device("meta")
    wanted = Generator(graph, config.generator, config.encoding, config.hidden, meta).state_dict()
    yield from (f"generator/{name}: missing" for name in wanted if name not in tensors)
    yield from (f"generator/{name}: not a parameter of this generator" for name in tensors if name not in wanted)
    yield from (
        f"generator/{name}: expected finite numbers of shape {list(like.shape)}, got {own.dtype} {list(own.shape)}"
        for name, like in wanted.items()
        if (own := tensors.get(name)) is not None
        and (own.shape != like.shape or own.dtype != like.dtype or not bool(own.isfinite().all()))
    )
