"""One family at a time: what goes, how much can be borne, and what all of them lose by what that costs each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from metaprune_cli.api.prune import prune
from metaprune_cli.config import PruneSettings
from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build
from metaprune_cli.pruning.masking import masked_copy
from metaprune_cli.pruning.repair import Original, outputs_without, repaired
from metaprune_cli.pruning.sensitivity import added_harm, bearable, in_order, numbers_to_try, without_lowest
from metaprune_cli.pruning.surgery import without
from metaprune_cli.workflows.lineage import descent


def test_the_lowest_of_one_family_go_and_one_stays() -> None:
    arch = Architecture("cifar:resnet8", {"width": 0.5, "in_channels": 1}, (1, 8, 8))
    units = encode(build(arch).eval(), torch.zeros(1, 1, 8, 8)).units
    scores = torch.rand(units.num_units, generator=torch.Generator().manual_seed(0))
    for family in units.families:
        if family.locked is None:
            for ratio in (0.01, 0.5, 0.999):
                gone = (~without_lowest(units, family, scores, ratio)).nonzero().flatten()
                assert set(gone.tolist()) < set(family.units.tolist())
                assert len(gone) == min(max(round(ratio * len(family.units)), 1), len(family.units) - 1)
                stays = scores[family.units[~torch.isin(family.units, gone)]]
                assert scores[gone].max() <= stays.min()


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ({0.25: 0.5, 0.5: 2.5}, 0.3125),  # a quarter of the way from 0.5 to 2.5
        ({0.25: 4.0, 0.5: 0.0}, 0.0625),  # nothing beyond the first that costs too much
        ({0.25: -1.0, 0.5: 0.9}, 0.5),  # all that was tried
        ({0.5: 2.0, 0.25: 0.0}, 0.375),  # in whatever order
    ],
)
def test_what_can_be_borne(drops: dict[float, float], expected: float) -> None:
    assert bearable(drops, 1.0) == pytest.approx(expected)


@pytest.mark.parametrize("power", [1.0, 1.7, 3.0])
def test_between_what_was_tried_harm_is_a_power_of_the_number(power: float) -> None:
    harms = {number: 0.01 * number**power for number in (4, 8, 12, 16)}
    total = added_harm(harms, 20).cumsum(0)
    wanted = [0.01 * number**power for number in range(1, 21)]
    assert total.tolist() == pytest.approx(wanted, rel=1e-9)


def test_a_unit_that_does_little_harm_waits_behind_one_that_does_more() -> None:
    added = added_harm({2: 1.0, 4: 1.1, 8: 9.0}, 8)
    assert (added.diff() >= 0).all()
    assert float(added[:4].sum()) == pytest.approx(1.1)  # the second pair is cheaper than the first: they go together
    assert float(added.sum()) == pytest.approx(9.0)


def test_a_single_number_and_no_harm_at_all_are_enough() -> None:
    assert added_harm({3: 0.6}, 5).tolist() == pytest.approx([0.2] * 5)
    assert (added_harm({1: 0.0, 2: 0.0}, 4) >= 0).all()


def test_families_are_tried_at_fractions_of_what_may_go() -> None:
    assert numbers_to_try(12, (0.25, 0.5, 0.75, 1.0)) == (3, 6, 9, 12)
    assert numbers_to_try(2, (0.25, 0.5, 0.75, 1.0)) == (1, 2)


def chain(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for into, outof in ((3, 16), (16, 16), (16, 16)):
        layers += [nn.Conv2d(into, outof, 3, padding=1, bias=False), nn.BatchNorm2d(outof), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


IMAGES = torch.randn(128, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_units_of_a_family_stay_in_their_order() -> None:
    units = encode(chain(), IMAGES[:1]).units
    scores = torch.rand(units.num_units, generator=torch.Generator().manual_seed(0))
    free = [number for number, family in enumerate(units.families) if units.prunable[family.units].all()]
    found = in_order(scores, units, {number: torch.ones(len(units.families[number].units)) for number in free})
    for number in free:
        members = units.families[number].units
        assert torch.equal(found[members].argsort(), scores[members].argsort())
    assert found[~units.prunable].min() > found[units.prunable].max()


def residual() -> nn.Module:
    return build(Architecture("cifar:resnet8", {"width": 0.5}, (3, 16, 16))).eval()


@pytest.mark.parametrize("make", [chain, residual])
def test_what_is_seen_is_what_the_smaller_model_does_after_its_repair(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = make()
    inputs = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    graph = encode(model, inputs[:1])
    number = next(n for n, f in enumerate(graph.units.families) if f.locked is None)
    kept = torch.ones(graph.units.num_units, dtype=torch.bool)
    kept[graph.units.families[number].units[::2]] = False
    original = Original.of(model, inputs)
    seen = outputs_without(masked_copy(model, graph, kept), graph, kept, inputs, original)
    small, _ = repaired(
        without(model, graph, kept, inputs[:1]), model, graph, kept, inputs, "least-squares", original=original
    )
    with torch.no_grad():
        off, lost = seen - small(inputs), seen - model(inputs)
    assert float(off.norm() / lost.norm()) < 0.1  # λ counts the zeros too


def with_a_useless_layer() -> nn.Module:
    """The second convolution has large weights, and all but two of its channels are never on."""
    model = chain()
    convolution, norm = model[3], model[4]
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    convolution.weight.data.mul_(30)
    norm.bias.data.fill_(-1e4)
    norm.bias.data[:2] = 0.5
    return model


def widths(model: nn.Module) -> list[int]:
    return [len(module.weight) for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_a_layer_that_does_nothing_goes_whatever_its_weights_are() -> None:
    model = with_a_useless_layer()
    found = prune(model, IMAGES[:1], speedup=2, scope="sensitivity", repair_inputs=IMAGES, repair="none")
    by_weights = prune(model, IMAGES[:1], speedup=2)
    assert widths(found.model) == [16, 7, 16]
    assert min(widths(by_weights.model)[::2]) < 16
    assert found.plan.speedup >= 2
    assert found.report["scope"] == "sensitivity"


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 32, 2, batch_first=True)
        self.out = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def test_heads_and_cells_are_tried_like_channels() -> None:
    torch.manual_seed(0)
    attending = VisionTransformer(16, 8, 1, 4, 32, 64, num_classes=10)
    for model, inputs in ((attending, torch.randn(8, 3, 16, 16)), (Recurrent(), torch.randn(16, 10, 16))):
        found = prune(model.eval(), inputs[:1], speedup=1.7, scope="sensitivity", repair_inputs=inputs)
        assert found.plan.speedup >= 1.7


@pytest.mark.parametrize("target", ["params=2x", "size=8KB", "macs=50%"])
def test_every_quantity_can_be_asked_for(target: str) -> None:
    found = prune(chain(), IMAGES[:1], target=target, scope="sensitivity", repair_inputs=IMAGES)
    assert found.plan.achieved >= found.plan.requested * 0.999


def test_it_needs_images_and_nothing_that_it_would_contradict() -> None:
    with pytest.raises(InputError, match="--scope sensitivity needs"):
        prune(chain(), IMAGES[:1], speedup=2, scope="sensitivity")
    with pytest.raises(InputError, match="nothing to search for"):
        PruneSettings(scope="sensitivity", search=4)
    with pytest.raises(InputError, match="which measures each layer once"):
        PruneSettings(scope="sensitivity", rescore=4)


def test_the_arm_is_called_so() -> None:
    step = {"command": "prune", "requested": 2.0, "criterion": "group-l2", "scope": "sensitivity"}
    assert descent((step,), Path("m.safetensors")).arm == "sensitivity"
