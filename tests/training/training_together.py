"""What the processes of the tests of distributed training do: small models on the digits, results as plain arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.config import DataSettings, MetaTrainSettings, OptimSettings
from metaprune_cli.data import load_splits
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.meta import ZooEntry, meta_train
from metaprune_cli.models import Architecture, build
from metaprune_cli.tasks import Classification
from metaprune_cli.training.distributed import Ranks
from metaprune_cli.training.loop import fit
from metaprune_cli.training.progress import Silence

CPU = torch.device("cpu")
IMAGE = torch.zeros(1, 1, 8, 8)
Arrays = dict[str, Any]
WIDTHS = (0.25, 0.5, 0.25, 0.25)


class Attention(nn.Module):
    """No BatchNorm, a width in Python that only a program can change, and a head that no image reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 16, 2, 2)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.head, self.unused = nn.Linear(16, 10), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        logits: Tensor = self.head(tokens.mean(1))
        return logits


def meta_trained(ranks: Ranks, members_per_step: int) -> tuple[Arrays, list[dict[str, float]]]:
    """A metanetwork of two epochs on three models of the zoo, chosen on a fourth; and its history."""
    torch.manual_seed(0)
    models = [
        build(Architecture("cifar:resnet8", {"width": width, "in_channels": 1}, (1, 8, 8))).eval() for width in WIDTHS
    ]
    entries = [ZooEntry(f"{place}", model, mp.encode(model, IMAGE)) for place, model in enumerate(models)]
    splits = load_splits(DataSettings(train_limit=120))
    settings = MetaTrainSettings(
        epochs=2, batches=1, batch_size=40, validate_every=2, speedup_max=3.0, members_per_step=members_per_step
    )
    metanet = MetaNetwork(MetaNetworkConfig(layers=1, hidden=4, ratio=0.1, score_head=True))
    result = meta_train(
        metanet,
        entries[:3],
        entries[3:],
        splits.train,
        splits.val,
        settings,
        task=Classification(),
        device=CPU,
        progress=Silence(),
        augment=True,
        ranks=ranks,
    )
    return arrays(result.state.model), result.history


def attention() -> nn.Module:
    torch.manual_seed(1)
    return Attention().eval()


def program() -> nn.Module:
    """What is left of it where the attention has lost channels."""
    return mp.prune(attention(), IMAGE, speedup=1.5).model


def normalised() -> nn.Module:
    torch.manual_seed(2)
    return build(Architecture("cifar:resnet8", {"width": 0.25, "in_channels": 1}, (1, 8, 8))).eval()


MODELS = {"attention": attention, "program": program, "batchnorm": normalised}


def fitted(
    ranks: Ranks, model: str, batch_size: int, teacher: str | None = None, **settings: Any
) -> tuple[Arrays, list[dict[str, float]]]:
    """A model trained for two epochs; its state dict and its history."""
    splits = load_splits(DataSettings(train_limit=120))
    result = fit(
        MODELS[model](),
        splits.train,
        replace(OptimSettings(epochs=2, lr=0.05, recalibrate=True), **settings),
        task=Classification(),
        batch_size=batch_size,
        augment=False,
        seed=3,
        device=CPU,
        progress=Silence(),
        val=splits.val,
        teacher=teacher and MODELS[teacher](),
        ranks=ranks,
    )
    return arrays(result.model.state_dict()), result.history


def taught(ranks: Ranks, settings: Arrays, model: str = "attention") -> tuple[Arrays, list[dict[str, float]]]:
    """The same with a teacher."""
    return fitted(ranks, model, 40, teacher="batchnorm", **settings)


def shared(ranks: Ranks) -> tuple[list[int], list[list[int]], str]:
    """Five items shared out and collected; what every rank has; and what the first one makes."""
    return (
        ranks.collect([10 * item for item in ranks.share(range(5))]),
        ranks.gather(list(ranks.share(range(5)))),
        ranks.from_first(lambda: f"made by {ranks.rank}"),
    )


def gradients(ranks: Ranks) -> list[Any]:
    """Of one parameter that both ranks reach, one that only the second does, and one that none does."""
    parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(3)]
    for parameter in parameters[:2] if ranks.rank else parameters[:1]:
        parameter.grad = torch.full((2, 3), 1.0 + ranks.rank)
    ranks.sum_gradients_(parameters)
    return [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters]


def arrays(tensors: Any) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors.items()}
