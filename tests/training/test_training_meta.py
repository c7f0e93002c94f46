from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaprune_cli.config import MetaTrainSettings
from metaprune_cli.data import ImageSplit
from metaprune_cli.errors import InputError, NumericsError, TargetError
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning import meta
from metaprune_cli.methods.metanet.learning.meta import MetaResult, ZooEntry, meta_train
from metaprune_cli.methods.metanet.learning.objectives import OBJECTIVES
from metaprune_cli.tasks import Classification
from metaprune_cli.training.progress import Silence
from metaprune_cli.training.state import Best, TrainState, snapshot

CPU = torch.device("cpu")


class World:
    """Everything a meta-training needs but its settings."""

    def __init__(
        self,
        metanet: MetaNetwork,
        zoo: list[ZooEntry],
        held_out: list[ZooEntry],
        train: ImageSplit,
        val: ImageSplit,
    ) -> None:
        self.metanet, self.zoo, self.held_out, self.train, self.val = metanet, zoo, held_out, train, val

    def run(
        self, state: TrainState | None = None, zoo: Sequence[ZooEntry] | None = None, **settings: Any
    ) -> tuple[MetaResult, list[TrainState]]:
        chosen = {
            "epochs": 4,
            "criterion": "group-l2",
            "speedup_max": 3.0,
            "batch_size": 50,
            "lr": 0.01,
            "validate_every": 2,
        } | settings
        states: list[TrainState] = []
        result = meta_train(
            self.metanet,
            self.zoo if zoo is None else zoo,
            self.held_out,
            self.train,
            self.val,
            MetaTrainSettings(**chosen),
            task=Classification(),
            device=CPU,
            progress=Silence(),
            augment=True,
            state=state,
            on_epoch=states.append,
        )
        return result, states


@pytest.fixture
def world(
    metanet: MetaNetwork, zoo: list[ZooEntry], held_out: list[ZooEntry], train: ImageSplit, val: ImageSplit
) -> World:
    return World(metanet, zoo, held_out, train, val)


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.mark.parametrize(
    ("objective", "killed_after"),
    [*itertools.product(["pruned", "sparsity"], [1, 2, 3, 4]), ("unstructured", 2), ("n:m", 2), ("l1", 2)],
)
def test_resumed_equals_uninterrupted(world: World, objective: str, killed_after: int) -> None:
    options: dict[str, Any] = {"objective": objective, "distill": 0.5, "criterion": "random"}
    options |= {"lookahead": 1} if objective in ("pruned", "sparsity") else {"zoo": world.zoo[:1], "pattern": "1:3"}
    whole, states = world.run(**options)
    tensors, document = states[killed_after - 1].to_parts()
    state = TrainState.from_parts(tensors, json.loads(json.dumps(document, allow_nan=False)))
    torch.manual_seed(99)  # whatever happened in between
    resumed, _ = world.run(state, **options)
    assert_equal(resumed.metanet_state, whole.metanet_state)
    assert_equal(resumed.state.to_parts()[0], whole.state.to_parts()[0])
    assert resumed.history == whole.history
    assert resumed.best_epoch == whole.best_epoch


def test_a_pattern_that_does_not_fit_is_refused_before_any_training(world: World) -> None:
    with pytest.raises(TargetError, match=r"nothing to zero[\s\S]*a layer that fits 1:3[\s\S]*pattern, tiny-1"):
        world.run(objective="n:m", pattern="1:3")


def test_images_may_pass_in_half_precision(world: World) -> None:
    whole, half = (world.run(precision=precision)[0] for precision in ("float32", "bfloat16"))
    losses = [[record["train_loss"] for record in run.history[1:]] for run in (whole, half)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in half.metanet_state.values())


def test_nothing_that_is_given_is_changed(world: World) -> None:
    before = copy.deepcopy((world.metanet.state_dict(), world.zoo[0].model.state_dict()))
    result, _ = world.run()
    assert_equal(world.metanet.state_dict(), before[0])
    assert_equal(world.zoo[0].model.state_dict(), before[1])
    assert not torch.equal(*(next(iter(s.values())) for s in (result.state.model, before[0])))


def test_the_epoch_with_the_lowest_validation_loss_wins(world: World) -> None:
    result, states = world.run()
    losses = {int(record["epoch"]): record["val_loss"] for record in result.history if "val_loss" in record}
    assert list(losses) == [0, 2, 4]
    assert result.best_epoch == min(losses, key=lambda epoch: losses[epoch])
    chosen = dict(world.metanet.state_dict()) if not result.best_epoch else dict(states[result.best_epoch - 1].model)
    assert_equal(result.metanet_state, chosen)


def test_where_nothing_gets_better_the_untrained_metanetwork_stays(world: World) -> None:
    result, _ = world.run(epochs=0)
    assert result.best_epoch == 0
    assert_equal(result.metanet_state, world.metanet.state_dict())
    assert [record["epoch"] for record in result.history] == [0]


def test_it_lowers_the_loss_it_trains_for(world: World) -> None:
    result, _ = world.run(epochs=40, validate_every=40, lr=0.01, schedule="constant", clip=10.0)
    losses = [record["train_loss"] for record in result.history[1:]]
    assert sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_one_vector_jacobian_product_is_the_gradient_through_the_metanetwork(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same step with the losses' own graph running through the metanetwork."""
    norms: dict[bool, list[float]] = {True: [], False: []}
    original = torch.nn.utils.clip_grad_norm_

    def one_epoch(detached: bool) -> dict[str, Tensor]:
        def clip(parameters: Any, limit: float) -> Tensor:
            norm = original(parameters, limit)
            norms[detached].append(float(norm))
            return norm

        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
        result, _ = world.run(epochs=1, batches=3, zoo=world.zoo[:1])
        return dict(result.state.model)

    def through(metanet: MetaNetwork, task: Any) -> float:
        written = task.member.rewritten(metanet(task.member.graph))
        loss = torch.stack(list(OBJECTIVES[task.settings.objective](task, written))).sum()
        loss.backward()
        return loss.item()

    detached = one_epoch(True)
    monkeypatch.setattr(meta, "_add_gradient", through)
    attached = one_epoch(False)
    assert norms[True] == pytest.approx(norms[False], rel=1e-4)
    for name, tensor in attached.items():
        torch.testing.assert_close(detached[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_nan_in_a_model_stops_and_names_the_parameter(world: World) -> None:
    broken = copy.deepcopy(world.zoo[0].model)
    with torch.no_grad():
        broken.get_parameter("outer.weight")[0, 0] = float("nan")
    tensors = {name: tensor.detach() for name, tensor in broken.state_dict().items()}
    entry = ZooEntry("broken", broken, world.zoo[0].graph.with_tensors(tensors))
    with pytest.raises(NumericsError, match=r"not finite"):
        world.run(zoo=[entry])


def test_nan_in_a_loss_names_model_and_parameter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(task: Any, weights: dict[str, Tensor]) -> Any:
        yield (weights["outer.weight"] * float("nan")).sum()

    monkeypatch.setattr(meta, "OBJECTIVES", {"pruned": poisoned})
    with pytest.raises(NumericsError, match=r"loss is nan(.|\n)*tiny-\d: the gradient of outer\.weight"):
        world.run()


def test_a_speed_up_that_a_model_cannot_reach_is_known_before_training(world: World) -> None:
    with pytest.raises(TargetError, match=r"cannot be met(.|\n)*meta-train\.speedup_max, tiny-0"):
        world.run(speedup_max=10000.0)


def test_no_models(world: World) -> None:
    with pytest.raises(InputError, match="no models to train the metanetwork on"):
        world.run(zoo=[])


def test_without_validation_models_the_zoo_chooses(world: World) -> None:
    world.held_out = []
    result, _ = world.run(epochs=1)
    assert "val_loss" in result.history[-1]


def test_the_validation_split_is_the_only_one_that_chooses(world: World) -> None:
    """Other validation images change the scores and not the training."""
    first, _ = world.run()
    world.val = world.val.subset(20, seed=0)
    other, _ = world.run()
    assert_equal(dict(other.state.model), dict(first.state.model))
    assert other.history[-1]["val_loss"] != first.history[-1]["val_loss"]


def test_a_state_of_another_metanetwork_is_refused(world: World) -> None:
    linear = nn.Linear(2, 2)
    best = Best(1, 0.5, snapshot(linear))
    state = TrainState.of(linear, torch.optim.AdamW(linear.parameters()), [{"epoch": 1}], epoch=1, best=best)
    with pytest.raises(Exception, match="that of another model"):
        world.run(state)


def test_a_score_head_learns_which_units_to_keep(world: World) -> None:
    torch.manual_seed(0)
    world.metanet = MetaNetwork(MetaNetworkConfig(layers=2, hidden=4, ratio=0.1, score_head=True))
    graph = world.held_out[0].graph
    untrained = world.metanet.rewrite(graph).importance
    assert untrained is not None
    assert not bool(untrained.any())
    result, states = world.run(criterion="metanet", fixed_cost=True)
    assert bool(states[-1].model["codec.importance"].any())
    resumed, _ = world.run(TrainState.from_parts(*states[1].to_parts()), criterion="metanet", fixed_cost=True)
    assert_equal(resumed.metanet_state, result.metanet_state)


def test_a_metanetwork_without_a_score_head_cannot_learn_scores(world: World) -> None:
    with pytest.raises(InputError, match=r"no score head(.|\n)*score_head=True"):
        world.run(criterion="metanet")
