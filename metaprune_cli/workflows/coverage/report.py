"""The report of a coverage run, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaprune_cli.console.figures import count, scientific, share, times
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.console.text import markdown as shown
from metaprune_cli.console.text import markdown_code
from metaprune_cli.graph.structure import IS_INPUT, IS_OUTPUT
from metaprune_cli.workflows.coverage.process import SKIPPED

Row = Mapping[str, Any]
_WIDE = 300

COLUMNS = (
    label("name", "Model"),
    label("status", "Status"),
    Column("params", "Params", count),
    Column("macs", "MACs", count),
    Column("encode_s", "Encode, s", lambda value: f"{value:.2f}"),
    label("bits", "Bits"),
    Column("families", "Families"),
    Column("locked", "Locked"),
    Column("prunable_share", "Params that can go", share),
    label("achieved", "Speed-up"),
    label("route", "Route"),
    Column("error", "Error", scientific),
    Column("training_error", "in training", scientific),
    label("batch", "Batch"),
    label("length", "Length"),
    label("trained", "Trains"),
    label("saved", "Saved"),
    label("generates", "Generates"),
    Column("seconds", "Seconds", lambda value: f"{value:.0f}"),
)
STATUSES = ("ok", "partly", "failed", SKIPPED)
REASONS = (label("name", "Model"), label("status", "Status"), label("because", "Because"))
LOCKS = (label("because", "Because"), label("models", "Models"))
_ALWAYS = ("no neuron: a constant", IS_INPUT, IS_OUTPUT)


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table a task, in order of appearance, one of what is not simply ok, and one of what else is locked."""
    tasks = dict.fromkeys(row["task"] for row in rows)
    found = [Table(task, COLUMNS, [_flat(row) for row in rows if row["task"] == task]) for task in tasks]
    odd = [{**row, "because": because(row)} for row in rows if row["status"] != "ok"]
    locks = {
        reason: ", ".join(row["name"] for row in rows if reason in row.get("locked_reasons", ()))
        for reason in dict.fromkeys(reason for row in rows for reason in row.get("locked_reasons", ()))
        if reason not in _ALWAYS
    }
    locked = [{"because": _short(reason), "models": models} for reason, models in locks.items()]
    further = (Table("Reasons", REASONS, odd), Table("Locked", LOCKS, locked))
    return [*found, *(table for table in further if table.rows)]


def summary(rows: Sequence[Row]) -> str:
    """One line."""
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    said = (f"{number} {status}" for status, number in counts.items() if number or status != SKIPPED)
    return f"{len(rows)} models: " + ", ".join(said)


def because(row: Row) -> str:
    """Why a row is not ok."""
    if row["status"] == "failed":
        return f"{row['step']}: {_short(row.get('error', ''))}"
    return "; ".join(_short(reason) for reason in row["reasons"])


def markdown(document: Mapping[str, Any]) -> str:
    """The whole report."""
    rows: Sequence[Row] = document["rows"]
    versions = ", ".join(f"{shown(name)} {shown(str(version))}" for name, version in document["versions"].items())
    parts = [
        "# Coverage",
        f"{summary(rows)}. Made by {markdown_code(document['command'])} with {versions}.",
        _LEGEND,
        *(f"## {shown(table.title.capitalize())}\n\n{_untitled(table).markdown()}" for table in tables(rows)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


_LEGEND = """
Every model is built with random weights (no zeros, no ones), encoded, written, read and decoded (equal to the bit:
every entry, type and buffer), its MACs are compared with the counter's, and it is pruned to every speed-up. The smaller
model runs in eval mode, trains (forward and backward), is saved and loaded in a fresh process (equal outputs, to the
bit), and is compared with the masked original in double precision (in single where its code insists on that):
*Error* in eval mode, *in training* in train mode with nothing dropped, the largest of all speed-ups.

The smaller model also runs on a *batch* of two and on another *length* (or size of image), compared with the masked
original there too, and language models *generate*, with their cache what they generate without. An empty field: the
original cannot do it either, or it was not asked.

*ok*: all of it. *partly*: all that can be tried holds; what cannot be reached or compared, or what only the original
can do, is said. *failed*: the step and the error. *skipped*: its package is not installed.

*Locked* families cannot be removed: inputs and outputs always, anything else for a reason (at the end).
"""


def _flat(row: Row) -> dict[str, Any]:
    done = [speedup for speedup in row.get("speedups", ()) if speedup["achieved"] is not None]
    return {
        **row,
        "achieved": ", ".join(times(speedup["achieved"]) for speedup in done),
        "route": ", ".join(dict.fromkeys(speedup["route"] for speedup in done)),
        "bits": _answer([row.get("bits")]),
        "batch": _answer([speedup.get("batch") for speedup in done]),
        "length": _answer([speedup.get("length") for speedup in done]),
        "generates": _answer([speedup.get("generates") for speedup in done]),
        "trained": _answer([speedup["trained"] is None for speedup in done if "trained" in speedup]),
        "saved": _answer([row.get("saved")]),
        "error": _worst(done, "error"),
        "training_error": _worst(done, "training_error"),
    }


def _answer(found: Sequence[Any]) -> str | None:
    """``yes`` where it holds at every speed-up, ``no`` where it does not at one; None where it was not asked."""
    answers = [one in (True, "yes") for one in found if one is not None]
    return ("yes" if all(answers) else "no") if answers else None


def _worst(done: Sequence[Row], key: str) -> float | None:
    return max((s[key] for s in done if s.get(key) is not None), default=None)


def _untitled(table: Table) -> Table:
    return Table("", table.columns, table.rows)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _WIDE else line[: _WIDE - 1] + "…"
