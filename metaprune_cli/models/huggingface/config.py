"""A configuration of ``transformers`` as plain data: what may stand in one that comes from anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from metaprune_cli.artifacts.schemas.plain import find_odd
from metaprune_cli.errors import InputError

CODE, QUANTISED, PRETRAINED = "auto_map", "quantization_config", "use_pretrained_backbone"
NOT_KEPT = frozenset(
    {"architectures", "transformers_version", "_name_or_path", "_commit_hash", "torch_dtype", "dtype", PRETRAINED}
)
"""What a configuration says of files and of the package: it changes nothing about which modules are built."""
_BUILT_IN = (None, "eager", "sdpa", "grouped_mm", "batched_mm")
"""Any other implementation of attention or of experts is a package, or code that would have to be fetched."""
LARGEST = 1 << 40
LONGEST = 1 << 16
_LISTED = 10


def checked_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a configuration says of the model's modules, once nothing in it reaches out or runs code.

    Args:
        config: as JSON.
        where: it is from, for messages.

    Raises:
        InputError: it names code of its own, weights that are quantised, an implementation of attention that is not
            part of PyTorch, or values that no configuration has; all of them are listed.
    """
    if CODE in _keys(config):
        raise InputError(
            "The configuration names its own modelling code, which would have to be run.",
            expected="a class of the package transformers",
            got=f"{CODE}: {str(config.get(CODE))[:200]}",
            where=where,
            next_step="in Python, load the model as its authors say, and give it to mp.encode or mp.prune",
        )
    problems = [*find_odd(dict(config)), *(problem for key, value in _items(config) for problem in _wrong(key, value))]
    if problems:
        raise InputError(
            "The configuration cannot be used.",
            expected="numbers, words and lists of them, and nothing that has to be fetched",
            got="\n".join(problems[:_LISTED]),
            where=where,
            next_step="save the model again in full precision with save_pretrained",
        )
    return _kept(config)


def _wrong(key: str, value: Any) -> Iterator[str]:
    """What is wrong with one entry, at any depth."""
    if key == QUANTISED and value:
        yield f"{key}: the weights are quantised"
    if key.endswith("_implementation"):
        named = value.values() if isinstance(value, Mapping) else [value]
        yield from (f"{key}: expected eager or sdpa, got {one!r:.100}" for one in named if one not in _BUILT_IN)
    if isinstance(value, int | float) and not abs(value) <= LARGEST:
        yield f"{key}: expected at most {LARGEST}, got {value!r:.40}"
    if isinstance(value, str) and len(value) > LONGEST:
        yield f"{key}: expected at most {LONGEST} letters, got {len(value)}"


def _kept(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not kept, here and in the configurations of parts; none of them asks for weights."""
    kept = {key: _kept(value) if isinstance(value, Mapping) else value for key, value in config.items()}
    kept = {key: value for key, value in kept.items() if key not in NOT_KEPT}
    return kept | ({PRETRAINED: False} if PRETRAINED in config else {})


def _items(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        yield key, value
        if isinstance(value, Mapping):
            yield from _items(value)
        for part in value if isinstance(value, list) else ():
            yield from _items(part) if isinstance(part, Mapping) else [(key, part)]


def _keys(config: Mapping[str, Any]) -> set[str]:
    return {key for key, _ in _items(config)}
