"""The document of a checkpoint; its tensors are compared with the model's when training goes on from it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from metaprune_cli.artifacts.schemas.fields import Artifact, Name, Number, Record, Text

EPOCHS = 1 << 24


class Best(Record):
    """The epoch whose weights are kept."""

    epoch: Annotated[int, Field(ge=0, le=EPOCHS)]
    score: Number


class State(Record):
    """A run after some epochs."""

    epoch: Annotated[int, Field(ge=0, le=EPOCHS)]
    history: list[dict[Name, Number]]
    best: Best | None = None

    @model_validator(mode="after")
    def _as_far_as_its_history(self) -> State:
        if len(self.history) - self.epoch not in (0, 1):  # meta-training has a row of the untrained network
            raise ValueError(f"the history of the {self.epoch} epochs that are done")
        if self.best is not None and self.best.epoch > self.epoch:
            raise ValueError(f"a best epoch of the {self.epoch} that are done")
        return self


class Checkpoint(Artifact):
    """The state of a run, and of which run it is."""

    fingerprint: Text
    state: State
