"""Learning from examples how much of every family is to stay: targets that reproduce a plan, and a head that moves."""

from __future__ import annotations

import math

import pytest
import torch
from test_training_meta import World, world  # noqa: F401 - a fixture

from metaprune_cli.errors import InputError
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.shares import Example, examples_of, imitation, movable_families
from metaprune_cli.methods.metanet.learning.zoo import ZooEntry
from metaprune_cli.pruning import by_unit, make_plan, unit_scores
from metaprune_cli.pruning.ranking import plain_limits, removal_order


def left(scores, units, count):
    """How many of each family a global ranking leaves when ``count`` units are gone."""
    order = removal_order(units, scores, "global", plain_limits(units, 1.0)).units
    kept = torch.ones(units.num_units, dtype=torch.bool)
    kept[order[:count]] = False
    return torch.zeros(len(units.families)).index_add(0, units.family_of, kept.float()).long().tolist()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("seed", range(8))
def test_ranks_lifted_as_wanted_leave_what_the_example_left(zoo: list[ZooEntry], number: int, seed: int) -> None:
    graph = zoo[number].graph
    units, draw = graph.units, torch.Generator().manual_seed(seed)
    ranks = unit_scores(graph, graph.tensors, "group-l2", normaliser="rank")
    movable = movable_families(units).tolist()
    example = [
        int(torch.randint(1, int(size), (), generator=draw)) if can else int(size)
        for size, can in zip(units.sizes, movable, strict=True)
    ]
    [wanted] = examples_of(units, [(2.0, example)])
    lifted = ranks * wanted.lifts.exp()[units.family_of]
    assert left(lifted, units, int(units.sizes.sum()) - sum(example)) == example


def test_what_all_families_have_in_common_is_nobodys_error(zoo: list[ZooEntry]) -> None:
    units = zoo[0].graph.units
    plan = make_plan(zoo[0].graph, torch.rand(units.num_units), 1.5, max_ratio=0.9)
    wanted = examples_of(units, [(plan.speedup, [family.after for family in plan.families])])
    as_wanted = wanted[0].lifts[units.family_of] + 0.7
    assert float(imitation(units, as_wanted, wanted)) == pytest.approx(0, abs=1e-10)
    one = as_wanted.clone()
    one[units.families[int(movable_families(units).nonzero()[0])].units] += 1
    assert float(imitation(units, one, wanted)) > 0.05


def test_two_terms_can_follow_examples_at_two_speedups_and_one_cannot(zoo: list[ZooEntry]) -> None:
    units = zoo[0].graph.units
    low, high = (torch.rand(len(units.families), generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    examples = [Example(2.0, low), Example(4.0, high)]
    slope = (high - low) / math.log(2)
    terms = torch.stack([low + slope * math.log(1.5), slope], dim=1)[units.family_of]  # the first at 3x
    assert float(imitation(units, terms, examples)) == pytest.approx(0, abs=1e-10)
    for level in (low, high, (low + high) / 2):
        assert float(imitation(units, level[units.family_of], examples)) > 1e-3


def test_a_plan_of_another_model_is_refused(zoo: list[ZooEntry]) -> None:
    units = zoo[0].graph.units
    for plan in ([1], [int(n) + 1 for n in units.sizes]):
        with pytest.raises(InputError, match="that of another model"):
            examples_of(units, [(2.0, plan)])


@pytest.mark.parametrize("objective", ["shares", "pruned"])
def test_the_score_head_learns_the_examples(world: World, objective: str) -> None:  # noqa: F811
    torch.manual_seed(0)
    world.metanet = MetaNetwork(MetaNetworkConfig(layers=2, hidden=8, ratio=0.01, score_head=True, normaliser="rank"))
    taught = []
    for entry in world.zoo:
        units = entry.graph.units
        movable = movable_families(units)
        first = int(movable.nonzero()[0])  # keeps all but one unit, the others one
        example = [
            int(n) if not can else int(n) - 1 if i == first else 1
            for i, (n, can) in enumerate(zip(units.sizes, movable, strict=True))
        ]
        taught.append(ZooEntry(entry.name, entry.model, entry.graph, examples_of(units, [(2.0, example)])))

    def far(network: MetaNetwork) -> float:
        made = [network.rewrite(entry.graph) for entry in taught]
        return sum(
            float(imitation(entry.graph.units, by_unit(entry.graph.units, one.importance), entry.examples).detach())
            for entry, one in zip(taught, made, strict=True)
            if one.importance is not None
        )

    result, states = world.run(
        zoo=taught,
        objective=objective,
        criterion="metanet",
        normaliser="rank",
        epochs=30,
        imitate=5.0,
        validate_every=30,
    )
    trained = MetaNetwork(world.metanet.config)
    trained.load_state_dict(dict(states[-1].model))
    assert far(trained) < 0.2 * far(world.metanet)
    assert result.history[-1]["train_loss"] < result.history[1]["train_loss"]
    if objective == "shares":  # nothing asks the weights to change
        old, new = (network.rewrite(taught[0].graph).tensors for network in (world.metanet, trained))
        names = sorted(taught[0].graph.trainable)
        change, whole = (
            torch.cat([tensor.detach().flatten() for tensor in tensors])
            for tensors in ([new[n] - old[n] for n in names], [old[n] for n in names])
        )
        assert float(change.norm()) < 0.001 * float(whole.norm())


def test_noise_is_on_what_the_metanetwork_reads_and_on_nothing_else(world: World) -> None:  # noqa: F811
    torch.manual_seed(0)
    world.metanet = MetaNetwork(MetaNetworkConfig(layers=2, hidden=8, ratio=0.01, score_head=True, normaliser="rank"))
    taught = []
    for entry in world.zoo:
        plan = make_plan(entry.graph, torch.rand(entry.graph.units.num_units), 1.5, max_ratio=0.9)
        shown = examples_of(entry.graph.units, [(plan.speedup, [family.after for family in plan.families])])
        taught.append(ZooEntry(entry.name, entry.model, entry.graph, shown))
    before = [{name: tensor.clone() for name, tensor in entry.graph.tensors.items()} for entry in taught]
    given = {"zoo": taught, "objective": "shares", "criterion": "metanet", "normaliser": "rank", "epochs": 2}
    (with_noise, _), (again, _), (without, _) = (world.run(**given, weight_noise=x) for x in (0.5, 0.5, 0.0))
    assert with_noise.history[0]["val_loss"] == without.history[0]["val_loss"]
    assert with_noise.history[1]["train_loss"] != without.history[1]["train_loss"]
    assert all(torch.equal(with_noise.metanet_state[n], t) for n, t in again.metanet_state.items())
    for entry, tensors in zip(taught, before, strict=True):
        assert all(torch.equal(entry.graph.tensors[name], tensor) for name, tensor in tensors.items())
