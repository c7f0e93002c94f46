"""One trial in a process of its own: whatever happens in it costs one row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import metaprune_cli
from metaprune_cli.config import CoverageSettings
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.suite import missing_package

POLL_S = 0.2
TRIAL, ROW = "trial.json", "row.json"
SKIPPED = "skipped"
"""The status of a model that cannot be built here."""


def try_model(
    entry: Entry, settings: CoverageSettings, modules: Path, stop: threading.Event | None = None
) -> dict[str, Any]:
    """Try one model; its row.

    Args:
        entry: the model.
        settings: the speed-ups, and what it may cost.
        modules: the folder that its factory is found in.
        stop: ends the trial once it is set.
    """
    if entry.table is None and (package := missing_package(entry)) is not None:  # of a table, a heading
        reasons = [f"the package {package} is not installed"]
        return {**entry.to_document(), "step": "start", "reasons": reasons, "seconds": 0.0, "status": SKIPPED}
    with tempfile.TemporaryDirectory(prefix="metaprune-coverage-") as name:
        folder = Path(name)
        (folder / TRIAL).write_text(
            json.dumps({"entry": entry.to_document(), "settings": asdict(settings)}), encoding="utf-8"
        )
        started = time.monotonic()
        ended = _run(folder, modules, settings, stop or threading.Event())
        row = json.loads((folder / ROW).read_text(encoding="utf-8")) if (folder / ROW).exists() else {"step": "start"}
    if ended is not None:
        row |= {"failed": True, "error": ended}
    row["seconds"] = time.monotonic() - started
    return {**entry.to_document(), **row, "status": _status(row)}


def _status(row: dict[str, Any]) -> str:
    if row.get("failed", True):
        return "failed"
    if row.get("skipped"):
        return SKIPPED
    return "partly" if row["reasons"] else "ok"


def _run(folder: Path, modules: Path, settings: CoverageSettings, stop: threading.Event) -> str | None:
    """Wait for the process; why it was ended, or how it ended by itself, if not well."""
    this = Path(metaprune_cli.__file__).parents[1]  # the same code as here, wherever that was started
    path = os.pathsep.join([str(modules), str(this), *filter(None, [os.environ.get("PYTHONPATH")])])
    errors = folder / "stderr"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            (sys.executable, "-m", "metaprune_cli.workflows.coverage.trial", str(folder)),
            env=os.environ | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            ended = _watch(process, settings, stop)
        finally:
            _end(process)
    if ended is None and process.returncode:
        last = errors.read_text(encoding="utf-8", errors="backslashreplace").strip().splitlines()[-1:]
        return f"the process ended with {process.returncode}: {''.join(last)[-1000:]}"
    return ended


def _watch(process: subprocess.Popen[bytes], settings: CoverageSettings, stop: threading.Event) -> str | None:
    deadline = time.monotonic() + settings.timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"more than {settings.timeout_s:g} s"
        if _memory_gb(process.pid) > settings.memory_gb:
            return f"more than {settings.memory_gb:g} GB of memory"
        if stop.wait(POLL_S):
            return "interrupted"
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and its children, which are in a session of their own."""
    if process.poll() is None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, 9)
        process.kill()
    process.wait()


def _memory_gb(session: int) -> float:
    """Resident memory of a session's processes; 0 where the system does not say (it has no /proc)."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    return sum(_resident(folder, session) for folder in Path("/proc").iterdir() if folder.name.isdigit()) / 2**30


def _resident(folder: Path, session: int) -> int:
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended meanwhile
        return 0
    return int(fields[21]) * os.sysconf("SC_PAGE_SIZE") if int(fields[3]) == session else 0
