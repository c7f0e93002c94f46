"""Comparing what a file says with the schema of its kind; every problem is named at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from metaprune_cli.artifacts.schemas.plain import find_odd
from metaprune_cli.artifacts.schemas.shapes import find_absurd
from metaprune_cli.errors import CorruptFileError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from torch import Tensor

_LISTED = 10
_SHORT = 60


def check_contents(
    document: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str | os.PathLike[str] | None
) -> None:
    """Check a document, whose ``kind`` is known, against the schema of its kind, and the shapes beside it.

    Keys that no schema names are kept as they are: users and later versions add some.

    Args:
        document: as it was parsed from the file.
        tensors: what else is in the file.
        path: the file, for the message.

    Raises:
        CorruptFileError: each field that is wrong is listed with what was expected and what is there.
    """
    refuse(find_odd(document) or [*_compared(document), *find_absurd(tensors)], document["kind"], path)


def refuse(problems: Sequence[str], kind: str, path: str | os.PathLike[str] | None) -> None:
    """Raise one error that lists all problems of a file; none where there are none.

    Args:
        problems: each ``field: expected …, got …``.
        kind: what the file should be.
        path: the file, if it is known.

    Raises:
        CorruptFileError: there is a problem.
    """
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
        raise CorruptFileError(
            f"The file does not describe a {kind}.",
            expected="the fields that metaprune writes, of their types and sizes",
            got="\n".join([*problems[:_LISTED], *more]),
            where=path,
            next_step="create the file again; if it came from someone else, do not trust it",
        )


def _compared(document: Mapping[str, Any]) -> Sequence[str]:
    """What the schema of the document's kind finds wrong."""
    from pydantic import ValidationError  # a seventh of a second

    from metaprune_cli.artifacts.schemas.kinds import KINDS

    try:
        KINDS[document["kind"]].model_validate(document)
    except ValidationError as error:
        return [_problem(detail) for detail in _details(error)]
    return []


def _details(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    return error.errors(include_url=False, include_context=False)


def _problem(detail: Mapping[str, Any]) -> str:
    """One field: its path, what was expected, what is there."""
    field = ".".join(str(part) for part in detail["loc"]) or "the document"
    expected = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if detail["type"] == "missing":
        return f"{field}: missing"
    return f"{field}: expected {expected}, got {shortened(detail['input'])}"


def shortened(value: object) -> str:
    """A JSON value in a few words."""
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"
