"""The methods there are, a row each; nothing outside ``methods/`` knows one by its module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaprune_cli.methods.base import Files, Learnt, Method


def _metanetworks() -> Files:
    from metaprune_cli.methods.metanet.files import Metanetworks

    return Metanetworks()


def _pruning_nets() -> Files:
    from metaprune_cli.methods.pruning_net.files import PruningNets

    return PruningNets()


METHODS: tuple[Method, ...] = (
    Method(
        name="metanet",
        about="a graph neural network, trained once on many models, rewrites the weights and scores the units",
        noun="metanetwork",
        command="transform",
        proposes=("weights", "scores"),
        done="rewritten by the metanetwork",
        chosen="ranked by its scores",
        criterion="metanet",
        learnt=Learnt(
            kind="metanetwork",
            listed="metanets",
            about="metanetworks that come with metaprune, or those in --folder DIR",
            facts={"layers": "Layers", "hidden": "Width", "score_head": "Score head"},
            made_by="meta-train",
            files=_metanetworks,
        ),
        source="arXiv 2506.12041",
        selfcheck="metaprune_cli.methods.metanet.selfcheck",
    ),
    Method(
        name="pruningnet",
        about="one network gives the weights of an architecture for any widths; a search tries widths with them",
        noun="PruningNet",
        command="pruning-net",
        proposes=("weights", "widths"),
        done="layer widths found by search with the weights of a PruningNet",
        learnt=Learnt(
            kind="hypernetwork",
            listed="pruningnets",
            about="PruningNets in --folder DIR",
            facts={"generator": "Generator", "hidden": "Directions", "genes": "Widths"},
            made_by="pruning-net",
            files=_pruning_nets,
        ),
        source="arXiv 1903.10258",
    ),
    Method(
        name="dhp",
        about="weights are generated from one latent number for every unit; training shrinks them, the smallest go",
        noun="hypernetwork",
        command="dhp",
        proposes=("weights", "units"),
        done="trained with generated weights",
        chosen="units with the smallest latents removed",
        source="arXiv 2003.13683",
    ),
)
"""In the order in which arms, lists and colours have them."""


def methods() -> tuple[Method, ...]:
    """All of them."""
    return METHODS


def method_by_command(command: str) -> Method:
    """The one that this subcommand carries out."""
    return next(method for method in methods() if method.command == command)


def learnt_by(command: str) -> Learnt:
    """What the method of this subcommand learns beforehand."""
    learnt = method_by_command(command).learnt
    assert learnt is not None
    return learnt


def method_of_step(step: Mapping[str, Any]) -> Method | None:
    """The method that a step of a lineage carried out, or that had a part in it; None for any other step."""
    return next((one for one in methods() if one.command == step["command"] or one.name == step.get("method")), None)


def methods_in(lineage: Sequence[Mapping[str, Any]]) -> tuple[Method, ...]:
    """Those that had a part in a model, each once, the first one first."""
    found = (method_of_step(step) for step in lineage)
    return tuple(dict.fromkeys(method for method in found if method is not None))


def scoring_method(lineage: Sequence[Mapping[str, Any]] = ()) -> Method:
    """The one whose scores a model carries: the last that scored it, or the first there is that scores."""
    last = [method for step in lineage if step.get("scored") and (method := method_of_step(step)) and method.criterion]
    return last[-1] if last else next(method for method in methods() if method.criterion)
