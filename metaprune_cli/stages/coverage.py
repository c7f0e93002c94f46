"""Every claim on every model of a suite: what holds, what does not, and why."""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from metaprune_cli import __version__
from metaprune_cli.config import CoverageSettings
from metaprune_cli.errors import InputError
from metaprune_cli.places import unwritable
from metaprune_cli.training.progress import Progress
from metaprune_cli.workflows.coverage import report
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.process import try_model
from metaprune_cli.workflows.coverage.suite import missing_package, read_suite
from metaprune_cli.workflows.paths import replace_file
from metaprune_cli.yaml_text import read_text

FORMAT = "metaprune coverage 1"
MOST_BYTES = 2**26
"""Of a report that is gone on with."""
AGAIN = ("failed", "skipped")
"""Rows that are made again."""
HEAVY = 150_000_000
"""Models with more parameters than this are tried one at a time, after the others."""
_NOT_IN_ROWS = {"timeout_s": 1.0, "memory_gb": 1.0, "jobs": 1}
"""Settings that do not change what a row says, made equal before settings are compared."""


@dataclass(frozen=True)
class Coverage:
    """All rows, in the suite's order, and how they were made; ``to_document`` is the file."""

    command: str
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def failed(self) -> int:
        """How many models failed."""
        return sum(row["status"] == "failed" for row in self.rows)

    def to_document(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT, **asdict(self), "summary": report.summary(self.rows)}


def coverage(
    suite: str,
    settings: CoverageSettings,
    *,
    only: Sequence[str],
    output: Path | None,
    markdown: Path | None,
    command: str,
    progress: Progress,
    fresh: bool = False,
    allow_import: bool = False,
) -> Coverage:
    """Try every model of a suite, each in a process of its own.

    Args:
        suite: ``torchvision``, another list of ours, or a file (see ``read_suite``).
        settings: speed-ups, and what one model may cost.
        only: glob patterns of names; none means all.
        output: the JSON file, written after every model. Rows that are in it already, made with the same versions and
            settings, are not made again unless they failed or were skipped.
        markdown: the report for people.
        command: the command line, for the report.
        progress: is told about each model.
        fresh: make all rows again.
        allow_import: run a Python file with a table of models, to see what is in it.

    Raises:
        InputError: the suite cannot be read, or a file cannot be written or is something else.
    """
    entries = read_suite(suite, only, allow_import=allow_import)
    _check_places([path for path in (output, markdown) if path is not None])
    found = Coverage(command, _versions(entries), asdict(settings), ())
    known = {} if output is None else _known(output, found, fresh=fresh)
    rows = {entry.name: known[entry.name] for entry in entries if _same(known.get(entry.name), entry)}
    kept = {name: row for name, row in known.items() if only and name not in rows}
    missing = [entry for entry in entries if entry.name not in rows]
    modules = Path(suite).resolve().parent if Path(suite).is_file() else Path.cwd()
    progress.begin("coverage", len(missing))
    for row in _tried(missing, settings, modules):
        rows[row["name"]] = row
        found = replace(found, rows=_ordered(entries, {**kept, **rows}))
        _write(found, output, markdown)
        progress.step(**_counts(found.rows))
    progress.end()
    found = replace(found, rows=_ordered(entries, {**kept, **rows}))
    _write(found, output, markdown)
    return found


def _tried(entries: Sequence[Entry], settings: CoverageSettings, modules: Path) -> Iterator[dict[str, Any]]:
    light = [entry for entry in entries if entry.params < HEAVY]
    heavy = [entry for entry in entries if entry.params >= HEAVY]
    stop = threading.Event()
    for part, jobs in ((light, settings.jobs), (heavy, 1)):
        with ThreadPoolExecutor(jobs) as pool:
            try:
                yield from pool.map(lambda entry: try_model(entry, settings, modules, stop), part)
            except BaseException:  # Ctrl-C: leaving the pool would wait for the models under way
                stop.set()
                raise


def _ordered(entries: Sequence[Entry], rows: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The rows in the suite's order; those of other runs, kept under ``--only``, by name before them."""
    names = [entry.name for entry in entries]
    return tuple(rows[name] for name in sorted(rows.keys() - set(names)) + [n for n in names if n in rows])


def _known(output: Path, now: Coverage, *, fresh: bool) -> dict[str, Mapping[str, Any]]:
    """The rows that are there already and still say what a new run would; failed ones are tried again.

    Raises:
        InputError: the file is not a coverage run's.
    """
    if not output.exists():
        return {}
    try:
        document = json.loads(read_text(output, "The output", MOST_BYTES))
        if document["format"] != FORMAT:
            raise ValueError("another format")
        same = document["versions"] == now.versions and _relevant(document["settings"]) == _relevant(now.settings)
        known = {row["name"]: row for row in document["rows"] if row["status"] not in AGAIN}
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            "The output exists and is not a coverage report.", where=output, next_step="choose another place with -o"
        ) from error
    return known if same and not fresh else {}


def _relevant(settings: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps({**settings, **_NOT_IN_ROWS}))


def _same(row: Mapping[str, Any] | None, entry: Entry) -> bool:
    document = json.loads(json.dumps(entry.to_document()))
    return row is not None and all(row.get(key) == value for key, value in document.items() if key != "params")


def _write(found: Coverage, output: Path | None, markdown: Path | None) -> None:
    document = found.to_document()
    if output is not None:
        replace_file(output, lambda part: part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8"))
    if markdown is not None:
        replace_file(markdown, lambda part: part.write_text(report.markdown(document), encoding="utf-8"))


def _check_places(paths: Sequence[Path]) -> None:
    problems = [f"{path}: {reason}" for path in paths if (reason := unwritable(path))]
    if problems:
        raise InputError("The results could not be written.", got="\n".join(problems), next_step="choose another place")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)


def _versions(entries: Sequence[Entry]) -> dict[str, str]:
    """Of what everything depends on, and of the packages that the models are of."""
    theirs = sorted({entry.package for entry in entries if entry.package and missing_package(entry) is None})
    packages = {name: version(name) for name in dict.fromkeys(("torch", "torchvision", *theirs))}
    return {"metaprune": __version__, **packages, "Python": platform.python_version()}


def _counts(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {status: sum(row["status"] == status for row in rows) for status in report.STATUSES}
