"""Which options belong to which kind of pruning: one that says nothing to a kind is refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from metaprune_cli.config import Kind
from metaprune_cli.errors import InputError

OF_ZEROS = ("classifier", "first")
OPTIONS: Mapping[Kind, Collection[str]] = MappingProxyType(
    {
        "unstructured": ("sparsity", "scope", *OF_ZEROS),
        "n:m": ("pattern", "kernel_only", *OF_ZEROS),
        "block": ("block", "sparsity", "scope", *OF_ZEROS),
    }
)
"""The settings of every kind that zeroes weights; ``structured`` has all others."""

OF_EVERY_KIND = ("kind", "seed")
SPELT: Mapping[str, str] = MappingProxyType({"classifier": "--include-classifier", "first": "--exclude-first"})


def check_options(kind: Kind, given: Collection[str]) -> None:
    """Refuse options of another kind.

    Args:
        kind: of the pruning.
        given: the settings that options gave, by field.

    Raises:
        InputError: listing all that do not belong to it.
    """
    of_others = {option for options in OPTIONS.values() for option in options if option != "scope"}
    allowed = OPTIONS.get(kind)
    wrong = [
        name
        for name in given
        if name not in OF_EVERY_KIND and (name in of_others if allowed is None else name not in allowed)
    ]
    if wrong:
        raise InputError(
            f"{' and '.join(map(_spelt, wrong))} cannot be said of --kind {kind}.",
            expected="options of structured pruning, such as --speedup" if allowed is None else _listed(allowed),
            where="the options",
            next_step=_advice(kind, wrong),
        )


def _advice(kind: Kind, wrong: Collection[str]) -> str:
    if kind == "n:m" and "sparsity" in wrong:
        return "--pattern 1:4 zeroes three weights of four, --pattern 2:4 two"
    kinds = [other for other in OPTIONS if set(wrong) <= set(OPTIONS[other])] or ["structured"]
    return f"leave it out, or say --kind {' or '.join(kinds)}"


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(_spelt, names))


def _spelt(name: str) -> str:
    return SPELT.get(name, "--" + name.replace("_", "-"))
