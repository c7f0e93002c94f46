"""How an output was made: the same in its artifact, in its checkpoint, and when deciding whether it is done already."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from metaprune_cli.artifacts import file_sha256, is_artifact, provenance, read_artifact, write_artifact
from metaprune_cli.config import DataSettings
from metaprune_cli.errors import MetapruneError
from metaprune_cli.stages.paths import checkpoint_of
from metaprune_cli.training.state import TrainState

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Made:
    """A command, its settings (plain JSON) and the sha256 of its input files: equal means the same output bytes."""

    command: str
    parameters: Mapping[str, Any]
    seed: int | None
    inputs: Mapping[str, str]

    @classmethod
    def by(
        cls, command: str, *, seed: int | None = None, inputs: Mapping[str, Path] | None = None, **settings: Any
    ) -> Made:
        """Describe a call: settings are dataclasses or plain values; where the data lie is not part of it."""
        parameters = {name: _plain(value) for name, value in settings.items()}
        hashes = {name: file_sha256(path) for name, path in (inputs or {}).items()}
        return cls(command, json.loads(json.dumps(parameters)), seed, hashes)

    def document(self) -> dict[str, Any]:
        """The ``made_by`` entry of an artifact."""
        return provenance(self.command, self.parameters, self.seed)

    def metrics_if_done(self, target: Path) -> dict[str, Any] | None:
        """The metrics of ``target`` if it is a whole artifact made in just this way, else None."""
        if not is_artifact(target):
            return None
        document = read_artifact(target).document
        same = document.get("made_by") == self.document() and document.get("inputs") == dict(self.inputs)
        return dict(document["metrics"]) if same else None

    def checkpoint(self, target: Path) -> Checkpoint:
        """Where the state of the run that makes ``target`` is kept until it is done."""
        described = json.dumps([self.document(), dict(self.inputs)], sort_keys=True)
        return Checkpoint(checkpoint_of(target), hashlib.sha256(described.encode()).hexdigest())


@dataclass(frozen=True)
class Checkpoint:
    """The state of an interrupted run; used again only by a run with the same settings and inputs."""

    path: Path
    fingerprint: str

    def load(self) -> TrainState | None:
        """The state to go on from; None where there is none that fits."""
        if not self.path.exists():
            return None
        try:
            artifact = read_artifact(self.path, "checkpoint")
        except MetapruneError as error:
            raise type(error)(
                error.what, where=self.path, next_step="delete it: the run then starts from the beginning"
            ) from error
        if artifact.document["fingerprint"] != self.fingerprint:
            log.warning("%s is of a run with other settings or inputs: starting from the beginning", self.path)
            return None
        return TrainState.from_parts(artifact.tensors, artifact.document["state"])

    def save(self, state: TrainState) -> None:
        """Replace the state on disk."""
        tensors, document = state.to_parts()
        write_artifact(self.path, "checkpoint", tensors, {"fingerprint": self.fingerprint, "state": document})

    def discard(self) -> None:
        """The run is done."""
        self.path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    if isinstance(value, DataSettings):
        value = replace(value, data_root=None, workers=0)  # where and how images are read differs between machines
        plain = asdict(value)
        if value.task is None:
            del plain["task"]  # as before there were others: what was made then is still done
        return plain
    return asdict(cast("DataclassInstance", value)) if hasattr(value, "__dataclass_fields__") else value
