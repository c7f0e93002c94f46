"""How an output was made: the same in its artifact, in its checkpoint, and when deciding whether it is done already."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from torch import Tensor

from metaprune_cli.artifacts import is_artifact, provenance, read_artifact, write_artifact
from metaprune_cli.config import AS_USUAL, NOTHING_SAID, DataSettings, PruneSettings
from metaprune_cli.errors import MetapruneError
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.digest import model_sha256
from metaprune_cli.models.importing import code_digest
from metaprune_cli.models.registry import is_factory
from metaprune_cli.training.state import TrainState
from metaprune_cli.workflows.paths import checkpoint_of

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)
State = TypeVar("State")

SHOWN, LENGTH = 4, 24
"""How many of the differences between two runs are named, and how much of a value is shown."""


@dataclass(frozen=True)
class Made:
    """A command, its settings (plain JSON) and the digests of all it was given: equal means the same output bytes.

    Where files and images lie, and what else belongs to the machine alone, is no part of it.
    """

    command: str
    parameters: Mapping[str, Any]
    seed: int | None
    inputs: Mapping[str, str]

    @classmethod
    def by(
        cls,
        command: str,
        *,
        seed: int | None = None,
        inputs: Mapping[str, Path] | None = None,
        digests: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Made:
        """Describe a call.

        Args:
            command: its name.
            seed: its seed.
            inputs: files that it reads, by name.
            digests: of what else it is given: images (``Splits.digest``), code (``code_of``).
            **settings: dataclasses or plain values.
        """
        parameters = {name: _plain(value) for name, value in settings.items()}
        hashes = {name: model_sha256(path) for name, path in (inputs or {}).items()}
        images = [value for value in settings.values() if isinstance(value, DataSettings)]
        tasks = [task for value in images if (task := value.task or value.usual_task)]
        return cls(command, json.loads(json.dumps(parameters)), seed, hashes | dict(digests or {}) | code_of(*tasks))

    def document(self) -> dict[str, Any]:
        """The ``made_by`` entry of an artifact."""
        return provenance(self.command, self.parameters, self.seed)

    def differences(self, other: Mapping[str, Any]) -> list[str]:
        """In words, what another output's document says of its making that is not so here; none: it is the same run."""
        old = dict(_flat({name: other.get(name) for name in ("made_by", "inputs")}))
        new = dict(_flat({"made_by": self.document(), "inputs": dict(self.inputs)}))
        changed = [name for name in sorted(old | new) if name not in old or name not in new or old[name] != new[name]]
        return [f"{_short_name(name)} was {_said(old, name)}, is {_said(new, name)}" for name in changed]

    def metrics_if_done(self, target: Path) -> dict[str, Any] | None:
        """The metrics of ``target`` if it is a whole artifact made in just this way, else None."""
        if not is_artifact(target):
            return None
        document = read_artifact(target).document
        if differences := self.differences(document):
            log.warning("%s %s: making it again", target, _in_a_line(differences))
            return None
        return dict(document["metrics"])

    def checkpoint(self, target: Path) -> Checkpoint:
        """Where the state of the run that makes ``target`` is kept until it is done."""
        return Checkpoint(checkpoint_of(target), self)


@dataclass(frozen=True)
class Checkpoint:
    """The state of an interrupted run; used again only by a run with the same settings and inputs.

    Two runs that write the same one at a time do no harm: each goes on with what it has in memory, the file is always
    a whole state of one of the two and says of which, and to lose it costs time only.
    """

    path: Path
    made: Made

    @property
    def fingerprint(self) -> str:
        """Of the run."""
        described = json.dumps([self.made.document(), dict(self.made.inputs)], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def load(self) -> TrainState | None:
        """The state to go on from; None where there is none that fits."""
        return self.read(TrainState.from_parts)

    def read(self, parse: Callable[[dict[str, Tensor], dict[str, Any]], State]) -> State | None:
        """What ``parse`` makes of tensors and document; None where there is no checkpoint that fits."""
        if not self.path.exists():
            return None
        try:
            artifact = read_artifact(self.path, "checkpoint")
            if artifact.document["fingerprint"] != self.fingerprint:
                differences = self.made.differences(artifact.document)
                log.warning("%s %s: starting from the beginning", self.path, _in_a_line(differences))
                return None
            return parse(artifact.tensors, artifact.document["state"])
        except MetapruneError as error:
            if not self.path.exists():  # another run for the same output has ended just now
                return None
            raise type(error)(
                error.what,
                expected=error.details["expected"],
                got=error.details["got"],
                where=self.path,
                next_step="delete it: the run then starts from the beginning",
            ) from error

    def save(self, state: TrainState) -> None:
        """Replace the state on disk."""
        self.write(*state.to_parts())

    def write(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """The same for any state."""
        whole = {"fingerprint": self.fingerprint, "made_by": self.made.document(), "state": document}
        write_artifact(self.path, "checkpoint", tensors, whole, self.made.inputs)

    def discard(self) -> None:
        """The run is done."""
        self.path.unlink(missing_ok=True)


def code_of(*names: str) -> dict[str, str]:
    """Of those architectures and criteria that are somebody else's code, the digests of its source, by name."""
    theirs = sorted(filter(is_factory, set(names)))
    return {f"code/{name}": digest for name in theirs if (digest := code_digest(name)) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Architecture):
        return value.to_document()
    if isinstance(value, DataSettings):
        # where and how images are read differs between machines
        plain = asdict(replace(value, data_root=None, workers=0, task=value.task or value.usual_task))
        del plain["usual_task"]
        if plain["task"] is None:
            del plain["task"]  # as before there were others: what was made then is still done
        if value.preprocessing == NOTHING_SAID:
            del plain["preprocessing"]  # alike
        if value.restoration == AS_USUAL:
            del plain["restoration"]
        return plain
    if isinstance(value, PruneSettings):
        plain = asdict(value)
        if value.route == "auto":
            del plain["route"]
        return plain
    return asdict(cast("DataclassInstance", value)) if hasattr(value, "__dataclass_fields__") else value


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, by dotted names."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(inner, f"{name}.{key}" if name else str(key))


def _short_name(name: str) -> str:
    return ascii(name.removeprefix("made_by.").removeprefix("parameters."))[1:-1]


def _said(values: Mapping[str, Any], name: str) -> str:
    """A value for people; of digests the beginning tells them apart."""
    if name not in values:
        return "not there"
    text = json.dumps(values[name])
    return text if len(text) <= LENGTH else text[:LENGTH].strip('"') + "…"


def _in_a_line(differences: list[str]) -> str:
    more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
    return f"is of a run with other settings or inputs ({'; '.join([*differences[:SHOWN], *more])})"
