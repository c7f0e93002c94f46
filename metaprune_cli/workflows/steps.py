"""The steps of a longer piece of work, with a record of what is done: an interrupted run goes on where it was."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metaprune_cli.artifacts.strict_json import parse_json
from metaprune_cli.errors import InputError
from metaprune_cli.places import unreadable, unwritable
from metaprune_cli.workflows.made import Made
from metaprune_cli.workflows.paths import replace_file

log = logging.getLogger(__name__)

SHOWN = 3
"""Of the differences between two runs."""
MOST_BYTES = 2**24
"""Of a record that is read."""


@dataclass(frozen=True)
class Result:
    """What a step says of itself: plain values, the files that it wrote, and how long it took.

    ``again`` is False where it was done by an earlier run.
    """

    figures: Mapping[str, Any]
    outputs: tuple[Path, ...]
    seconds: float
    again: bool = True


@dataclass(frozen=True, eq=False)
class Steps:
    """A folder of results and the record in it.

    A step is done if the record says that it was made in the same way (``Made``: command, settings, seed, versions,
    digests of all it reads) and the files that it wrote are still what they were.

    Attributes:
        file: the record.
        command: whose it is; another command's record is not touched.
        entries: the record, by step.
    """

    file: Path
    command: str
    entries: dict[str, Any] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, folder: Path, command: str) -> Steps:
        """Those of a folder, which need not be there; a record that cannot be read is begun anew.

        Raises:
            InputError: the record could not be written there, or a file of that name is somebody else's.
        """
        file = folder / f"{command}.json"
        problem = unwritable(file)
        if problem:
            raise InputError("Nothing can be written there.", got=problem, where=file, next_step="-o FOLDER")
        if not file.exists():
            return cls(file, command)
        entries = _read(file, command)
        if entries is None:
            raise InputError(
                "There is a file of this name, but it is not a record of such steps.",
                expected=f"a new folder, or one of `metaprune {command}`",
                where=file,
                next_step="choose another folder with -o, or remove the file",
            )
        return cls(file, command, entries)

    def run(self, name: str, made: Made, work: Callable[[], tuple[Mapping[str, Any], Sequence[Path]]]) -> Result:
        """The result of a step: that of an earlier run if it is done, else of ``work``, which is noted.

        Args:
            name: of the step.
            made: all that the result depends on.
            work: does it; returns its figures and the files that it wrote.
        """
        done = self._done(name, made)
        if done is not None:
            return done
        start = time.monotonic()
        figures, outputs = work()
        result = Result(json.loads(json.dumps(figures)), tuple(outputs), time.monotonic() - start)
        self.entries[name] = {
            "made_by": made.document(),
            "inputs": dict(made.inputs),
            "figures": result.figures,
            "outputs": self._digests(result.outputs),
            "seconds": round(result.seconds, 3),
        }
        text = json.dumps({"metaprune": self.command, "steps": self.entries}, indent=1)
        replace_file(self.file, lambda part: part.write_text(text + "\n", encoding="utf-8"))
        return result

    def _done(self, name: str, made: Made) -> Result | None:
        entry = self.entries.get(name)
        if entry is None:
            return None
        differences = made.differences(entry)
        if differences:
            own = [text for text in differences if not text.startswith("inputs.")]  # others follow from earlier steps
            if own:
                self._say_once(f"Settings or inputs have changed, so steps run again: {'; '.join(own[:SHOWN])}")
            return None
        outputs = tuple(self.file.parent / path for path in entry["outputs"])
        if any(not path.exists() for path in outputs) or self._digests(outputs) != entry["outputs"]:
            log.warning("%s: runs again, because its files have changed", name)
            return None
        return Result(entry["figures"], outputs, entry["seconds"], again=False)

    def _say_once(self, text: str) -> None:
        """Warn, unless another step has given the same reason."""
        if text not in self._said:
            log.warning(text)
            self._said.add(text)

    def _digests(self, outputs: Sequence[Path]) -> dict[str, str]:
        """Of each file, and of every file of a folder, by its path below that of the record."""
        files = [file for path in outputs for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        names = {file.relative_to(self.file.parent).as_posix(): file for file in files if file.is_file()}
        return dict(Made.by(self.command, inputs=names).inputs)


def _read(file: Path, command: str) -> dict[str, Any] | None:
    """The entries of a record; none where they are damaged; None where it is nobody's of this command."""
    if unreadable(file) or file.stat().st_size > MOST_BYTES:
        return None
    try:
        content = parse_json(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("metaprune") != command:
        return None
    steps = content.get("steps")
    return {name: entry for name, entry in steps.items() if _is_whole(entry)} if isinstance(steps, dict) else {}


def _is_whole(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("seconds"), int | float):
        return False
    if not all(isinstance(entry.get(name), dict) for name in ("made_by", "inputs", "figures", "outputs")):
        return False
    return all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in entry["outputs"])
