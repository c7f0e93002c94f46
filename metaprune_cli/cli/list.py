"""``metaprune list``: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import unfolded
from metaprune_cli.config.flags import DATA
from metaprune_cli.console.figures import count
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.methods.base import Learnt
from metaprune_cli.methods.registry import methods

LEARNT = [method.learnt for method in methods() if method.learnt]
ABOUT = {
    "archs": "architectures, for --arch ('timm:*' and 'hf:*' list those of packages); any package.module:factory too",
    "criteria": "how units are scored, for prune --criterion",
    "datasets": "images, for --dataset; --data-root DIR says whether they are there",
    "methods": "who decides what goes, and with which weights the rest stays",
    "tasks": "what models are for, for --task; any package.module:task is one as well",
    **{learnt.listed: learnt.about for learnt in LEARNT},
}


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _of_learnt(learnt: Learnt) -> Sequence[Column]:
    facts = [Column(key, title) for key, title in learnt.facts.items()]
    return (
        label("name", learnt.kind.capitalize()),
        *facts,
        Column("params", "Parameters", count),
        label("path", "File"),
    )


COLUMNS: Mapping[str, Sequence[Column]] = {
    "archs": (
        label("name", "Architecture"),
        label("task", "For"),
        Column("params", "Parameters", count),
        Column("input_shape", "One input", _shape),
    ),
    "criteria": (
        label("name", "Criterion"),
        label("about", "How much a unit matters"),
        label("needs", "Needs"),
        label("source", "From"),
    ),
    "datasets": (
        label("name", "Data set"),
        label("about", "Images"),
        label("layout", "Files below --data-root"),
        label("found", "Found"),
    ),
    "methods": (
        label("name", "Method"),
        label("about", "What it does"),
        Column("proposes", "Proposes", ", ".join, right=False),
        label("learns", "Learns first"),
        label("command", "Command"),
        label("source", "From"),
    ),
    "tasks": (
        label("name", "Task"),
        label("about", "What it is"),
        Column("metrics", "Measures", ", ".join, right=False),
        label("headline", "Compared by"),
    ),
    **{learnt.listed: _of_learnt(learnt) for learnt in LEARNT},
}


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in ABOUT if kind.startswith(incomplete)]


@guarded
@unfolded
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="|".join(ABOUT),
            help="What to list. Without it: what can be listed.",
            autocompletion=_kinds,
            show_default=False,
        ),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", help="Part of a name, or a pattern: 'cifar:*'.", show_default=False),
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option("--data-root", metavar="DIR", help="Folder that contains the images.", rich_help_panel=DATA),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--folder", rich_help_panel=DATA, metavar="DIR", help="Folder of metanetworks, searched recursively."
        ),
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List architectures, criteria, data sets, methods, tasks and metanetworks by name."""
    if kind is None:
        rows = [{"name": name, "about": about} for name, about in ABOUT.items()]
        show(
            {"lists": rows}, Table("", (label("name", "List"), label("about", "What is in it")), rows), as_json=as_json
        )
        return
    from metaprune_cli.stages import list as stage

    rows = [stage.record(entry) for entry in stage.listing(kind, pattern, data_root=data_root, folder=folder)]
    show({kind: rows}, *([Table("", COLUMNS[kind], rows)] if rows else []), as_json=as_json)
    if not rows:
        (learnt,) = (learnt for learnt in LEARNT if learnt.listed == kind)
        print_note(
            f"No {learnt.kind} comes with metaprune: `metaprune {learnt.made_by}` makes one, --folder DIR lists yours."
        )
