"""A caller may be in ``torch.inference_mode()``, as measuring code often is: nothing comes out differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import metaprune_cli as mp

QUICK = mp.SearchSettings(population=3, iterations=1, images=16, verify=16, repair_images=16)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 3, 8, 8, generator=generator), torch.randint(3, (64,), generator=generator)


Call = Callable[[nn.Module, Tensor], object]
CALLS: dict[str, Call] = {
    "encode": lambda model, x: mp.encode(model, x).state_dict(),
    "prune": lambda model, x: mp.prune(model, x, criterion="taylor", data=images(), repair="least-squares").model,
    "search": lambda model, x: mp.search(model, x, speedup=1.5, data=images(), settings=QUICK).model,
    "sparsify": lambda model, x: mp.sparsify(model, x).model,
    "finetune": lambda model, _: mp.finetune(model, images(), epochs=1).model,
    "compress": lambda model, _: mp.compress(model, images(), epochs=1).model,
    "train_pruning_net": lambda model, _: mp.train_pruning_net(model, images(), epochs=1),
    "DHP": lambda model, x: mp.DHP(model, x, steps=4),
}


def weights(made: object) -> dict[str, Tensor]:
    return dict(made.state_dict()) if isinstance(made, nn.Module) else dict(made)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", CALLS)
def test_it_makes_no_difference(name: str) -> None:
    wanted = weights(CALLS[name](net(), torch.zeros(1, 3, 8, 8)))
    with torch.inference_mode():
        found = weights(CALLS[name](net(), torch.zeros(1, 3, 8, 8)))
    assert found.keys() == wanted.keys()
    for entry, tensor in wanted.items():
        torch.testing.assert_close(found[entry].clone(), tensor)


def finished(model: nn.Module, x: Tensor) -> nn.Module:
    made = mp.DHP(model, x, steps=2)
    for _ in range(2):
        made.shrink_()
    return made.finish()


def loaded(model: nn.Module, folder: Path) -> nn.Module:
    torch.save(model, folder / "model.pt")
    return mp.load_model(folder / "model.pt", trust_pickle=True)


@pytest.mark.parametrize("name", ["prune", "finetune", "sparsify", "transform", "decode", "load_model", "DHP"])
def test_what_is_made_in_it_can_be_trained_outside(name: str, tmp_path: Path) -> None:
    model, x = net(), torch.zeros(1, 3, 8, 8)
    more: dict[str, Call] = {
        "transform": mp.transform,
        "decode": lambda model, x: mp.decode(mp.encode(model, x), model),
        "load_model": lambda model, _: loaded(model, tmp_path),
        "DHP": finished,
    }
    with torch.inference_mode():
        made = (CALLS | more)[name](model, x)
    assert isinstance(made, nn.Module)
    made.train()(images()[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


def test_no_unit_is_locked_by_it() -> None:
    with torch.inference_mode():
        graph = mp.encode(net(), torch.zeros(1, 3, 8, 8))
    assert bool(graph.units.prunable.any())
