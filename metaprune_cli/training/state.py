"""The state of a training run between two epochs: all that is needed to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.artifacts.schemas import shortened
from metaprune_cli.errors import CorruptFileError

LISTED = 10
Record = dict[str, float]
"""The figures of one epoch."""


@dataclass(frozen=True, eq=False)
class Best:
    """The best weights so far: after ``epoch`` epochs, with the validation loss ``score`` (or the error in percent)."""

    epoch: int
    score: float
    weights: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TrainState:
    """A run after ``epoch`` epochs; random numbers are not part of it, they follow from the seed and the epoch.

    Attributes:
        epoch: epochs that are done.
        model: the state dict of what is trained.
        optimizer: the optimiser's state of every parameter, by number and name; its settings are not part of it.
        history: the figures of every epoch so far.
        best: the best weights so far, where the run chooses among its epochs.
        average: the state dict of the averaged model, where there is one.
    """

    epoch: int
    model: Mapping[str, Tensor]
    optimizer: Mapping[int, Mapping[str, Tensor]]
    history: tuple[Record, ...]
    best: Best | None = None
    average: Mapping[str, Tensor] | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        history: list[Record],
        *,
        epoch: int,
        best: Best | None = None,
        average: nn.Module | None = None,
    ) -> TrainState:
        """A snapshot: further training does not change it."""
        moments = {
            number: {name: tensor.clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}
            for number, state in optimizer.state_dict()["state"].items()
        }
        averaged = None if average is None else snapshot(average)
        return cls(epoch, snapshot(model), moments, tuple(history), best, averaged)

    def restore_(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None = None) -> None:
        """Bring ``model``, ``optimizer`` and ``average`` to this state.

        Raises:
            CorruptFileError: the state is that of another model or optimiser.
        """
        if problems := [*self._unlike(model, average), *_unlike_moments(self.optimizer, optimizer)]:
            got = "\n".join(problems[:LISTED])
            raise CorruptFileError(
                "The checkpoint is that of another model.", got=got, next_step="start without --resume"
            )
        try:
            model.load_state_dict(dict(self.model))
            if average is not None:
                average.load_state_dict(dict(self.average or {}))
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": _copied(self.optimizer), "param_groups": groups})
        except (RuntimeError, ValueError) as error:
            raise CorruptFileError(
                "The checkpoint is that of another model.", got=error, next_step="start without --resume"
            ) from error

    def _unlike(self, model: nn.Module, average: nn.Module | None) -> Iterator[str]:
        """How the weights differ from those of the model; the best are those of what is evaluated."""
        result = model if average is None else average
        yield from _unlike("model", self.model, model)
        if average is not None:
            yield from _unlike("average", self.average or {}, average)
        if self.best is not None:
            yield from _unlike("best", self.best.weights, result)

    def to_parts(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a JSON document, ready to be written without pickle."""
        document: dict[str, Any] = {"epoch": self.epoch, "history": list(self.history), "best": None}
        if self.best is not None:
            document["best"] = {"epoch": self.best.epoch, "score": self.best.score}
        return dict(self._named_tensors()), document

    @classmethod
    def from_parts(cls, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> TrainState:
        """The state that :meth:`to_parts` took apart.

        Raises:
            CorruptFileError: the parts are not those of a training state.
        """
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "best": {}, "average": {}}
        try:
            for path, tensor in tensors.items():
                group, _, name = path.partition("/")
                groups[group][name] = tensor
            moments: dict[int, dict[str, Tensor]] = {}
            for path, tensor in groups["optimizer"].items():
                number, _, name = path.partition("/")
                moments.setdefault(int(number), {})[name] = tensor
            best = document["best"] and Best(document["best"]["epoch"], document["best"]["score"], groups["best"])
            average = groups["average"] or None
            return cls(document["epoch"], groups["model"], moments, tuple(document["history"]), best, average)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                "This does not describe the state of a training run.", got=error, next_step="start without --resume"
            ) from error

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.model.items():
            yield f"model/{name}", tensor
        for number, moments in self.optimizer.items():
            for name, tensor in moments.items():
                yield f"optimizer/{number}/{name}", tensor
        for name, tensor in (self.best.weights if self.best else {}).items():
            yield f"best/{name}", tensor
        for name, tensor in (self.average or {}).items():
            yield f"average/{name}", tensor


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict that further training does not change."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _unlike(group: str, weights: Mapping[str, Tensor], model: nn.Module) -> Iterator[str]:
    own = model.state_dict()
    yield from (f"{group}/{name}: missing" for name in own if name not in weights)
    yield from (f"{group}/{shortened(name)}: not in the model" for name in weights if name not in own)
    yield from (
        f"{group}/{name}: expected {own[name].dtype} {list(own[name].shape)}, got {found.dtype} {list(found.shape)}"
        for name, found in weights.items()
        if name in own and (found.shape != own[name].shape or found.dtype != own[name].dtype)
    )


def _unlike_moments(moments: Mapping[int, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer) -> Iterator[str]:
    """How an optimiser's state differs from what it keeps of its parameters: numbers, or tensors of their shape."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    needed = {"step", "exp_avg", "exp_avg_sq"} if isinstance(optimizer, torch.optim.AdamW) else set()
    for number, state in moments.items():
        if number not in range(len(parameters)):
            yield f"optimizer/{number}: expected one of {len(parameters)} parameters"
            continue
        yield from (f"optimizer/{number}/{name}: missing" for name in sorted(needed - state.keys()))
        yield from (
            f"optimizer/{number}/{shortened(name)}: expected {list(wanted)}, got {found.dtype} {list(found.shape)}"
            for name, found in state.items()
            if found.shape != (wanted := torch.Size() if name == "step" else parameters[number].shape)
            or not found.is_floating_point()
        )


def _copied(moments: Mapping[int, Mapping[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
    """``load_state_dict`` may keep the very tensors it is given, and the optimiser then writes to them."""
    return {number: {name: tensor.clone() for name, tensor in state.items()} for number, state in moments.items()}
