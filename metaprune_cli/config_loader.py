"""From plain values (params.yaml, flags) to a settings class: its type hints are the schema."""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from metaprune_cli.errors import InputError
from metaprune_cli.yaml_text import read_yaml

Settings = TypeVar("Settings")

LARGEST = 10**9
"""Of every number that has no bound of its own: no run ends that counts to more."""
SHOWN = 200
"""Characters of a wrong value that a message shows."""


@dataclass(frozen=True)
class Range:
    """The numbers a setting may take, as metadata of its annotation; a bound left out is infinite."""

    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    @property
    def is_open(self) -> bool:
        """Whether there is no largest number, so that ``LARGEST`` is."""
        return math.isinf(self.at_most) and math.isinf(self.below)

    def __contains__(self, value: float) -> bool:
        return self.at_least <= value <= self.at_most and self.above < value < self.below

    def __str__(self) -> str:
        bounds = {"at least": self.at_least, "at most": self.at_most, "above": self.above, "below": self.below}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if math.isfinite(bound))


def module_named(text: str) -> str:
    """``package.module:name``, where a file of code was given, ``package/module.py:name``; other text as it is."""
    place, colon, name = text.partition(":")
    if not colon or not place.endswith(".py"):
        return text
    return f"{'.'.join(PurePath(place.removesuffix('.py')).parts)}:{name}"


@dataclass(frozen=True)
class Reference:
    """Text that names something importable, as metadata of its annotation."""

    def __contains__(self, value: str) -> bool:
        module, colon, name = value.partition(":")
        return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))

    def __str__(self) -> str:
        return "package.module:function"

    is_code = __contains__


@dataclass(frozen=True)
class NameOrReference:
    """Text that may name something importable: it does with a prefix that is none of the ``known`` ones."""

    known: tuple[str, ...]

    def is_code(self, value: str) -> bool:
        """Whether using this value would import code."""
        prefix, colon, _ = value.partition(":")
        return bool(colon) and prefix not in self.known


def read_params(path: Path) -> dict[str, Any]:
    """The sections of a params file; an empty file has none.

    Raises:
        InputError: it cannot be read, is no YAML, is out of proportion, or holds no sections.
    """
    content = read_yaml(path, "The settings file")
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(
            "The settings file has no sections.", expected="lines such as 'data:'", got=brief(content), where=path
        )
    return content


def parse(cls: type[Settings], values: Any, *, section: str, where: object) -> Settings:
    """A settings class from plain values; what is left out takes its default.

    Raises:
        InputError: with every unknown key, wrong type, unknown choice and number out of range at once.
    """
    problems: list[str] = []
    settings: Settings = _Parser(problems).instance(cls, values, "")
    if problems:
        count = "One setting" if len(problems) == 1 else f"{len(problems)} settings"
        raise InputError(
            f"{count} of section '{section}' cannot be used:\n" + "\n".join(f"  - {problem}" for problem in problems),
            where=where,
            next_step="correct them; settings that are left out have their defaults",
        )
    return settings


def revised(
    cls: type[Settings], given: Settings | None, said: Mapping[str, Any], *, section: str, where: object
) -> Settings:
    """Settings that were handed to a call in Python, checked as those of a file are.

    Args:
        cls: their class.
        given: the settings; None: the usual ones.
        said: beside them, by name; None is not said.
        section: of params.yaml that they would be in.
        where: the call.

    Raises:
        InputError: they are of another class; or as ``parse``.
    """
    if given is not None and not isinstance(given, cls):
        raise InputError("These are not the settings.", expected=cls.__name__, got=type(given).__name__, where=where)
    beside = {name: value for name, value in said.items() if value is not None}
    return parse(cls, asdict(given or cls()) | beside, section=section, where=where)  # type: ignore[call-overload]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top, mapping by mapping."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def brief(value: object) -> str:
    """A value as Python writes it, cut where it goes on for long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """ ", did you mean 'x'?" where one of ``known`` is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f", did you mean '{close[0]}'?" if close else ""


def n_of_m(text: str, *, where: str) -> tuple[int, int]:
    """The numbers of a pattern such as ``2:4``: of 4 weights in a row 2 stay.

    Raises:
        InputError: it is none, or nothing would go or stay.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    kept, group = map(int, found.groups()) if found else (0, 0)
    if not 0 < kept < group:
        raise InputError(
            "This is not a pattern of weights to keep.",
            expected="N:M with N from 1 to M - 1, such as 2:4: of 4 weights in a row 2 stay",
            got=text,
            where=where,
        )
    return kept, group


def rows_by_columns(text: str, *, where: str) -> tuple[int, int]:
    """The numbers of a block such as ``4x1``: 4 outputs, 1 input.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    rows, columns = map(int, found.groups()) if found else (0, 0)
    if not (rows and columns):
        raise InputError(
            "This is not a block size.", expected="outputs x inputs, such as 4x1 or 16x16", got=text, where=where
        )
    return rows, columns


ZEROING = "belongs to section 'sparsify' now: metaprune sparsify zeroes weights, prune only removes units"
MOVED = {
    "PruneSettings": dict.fromkeys(
        ("kind", "sparsity", "pattern", "block", "classifier", "first", "kernel_only"), ZEROING
    )
}
"""Settings that a class had once → where they are, for the files of people who have them there."""


class _Unusable(Exception):  # noqa: N818 - carries one problem's text up to its key
    """A value that does not fit its annotation."""


class _Parser:
    """Recursive descent over type hints; problems are collected as "key: what is wrong"."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems

    def instance(self, cls: type[Any], values: Any, prefix: str) -> Any:
        """A dataclass from a mapping; None once there is a problem below ``prefix``."""
        if not isinstance(values, Mapping):
            self.problems.append(
                f"{prefix.rstrip('.') or 'the section'}: expected keys and values, got {brief(values)}"
            )
            return None
        hints = get_type_hints(cls, include_extras=True)
        known = {field.name: field for field in fields(cls)}
        before = len(self.problems)
        moved = MOVED.get(cls.__name__, {})
        for key in values:
            if key not in known:
                self.problems.append(f"{prefix}{key}: {moved.get(key) or f'unknown{_meant(key, known)}'}")
        for name, field in known.items():
            if name not in values and field.default is MISSING and field.default_factory is MISSING:
                self.problems.append(f"{prefix}{name}: missing")
        parsed = {key: self.value(hints[key], values[key], f"{prefix}{key}") for key in known if key in values}
        return cls(**parsed) if len(self.problems) == before else None

    def value(self, hint: Any, value: Any, key: str) -> Any:
        """One value as its annotation wants it; None where it does not fit."""
        if get_origin(hint) is Annotated and get_origin(get_args(hint)[0]) is tuple:
            hint = get_args(hint)[0]  # what is beside a tuple is not about its items
        if is_dataclass(hint):
            return self.instance(hint, value, f"{key}.")  # type: ignore[arg-type]
        if get_origin(hint) is tuple:
            item = get_args(hint)[0]
            items = value if isinstance(value, list | tuple) else [value]  # a single value is a tuple of one
            return tuple(self.value(item, each, f"{key}[{number}]") for number, each in enumerate(items))
        try:
            return _scalar(hint, value)
        except _Unusable as problem:
            self.problems.append(f"{key}: {problem}")
            return None


def _scalar(hint: Any, value: Any) -> Any:
    """A value of a type without settings inside: number, text, choice, optional, or mapping of these."""
    value = _builtin(value)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        plain = _scalar(arguments[0], value)
        for limits in arguments[1:]:
            if isinstance(plain, str) and isinstance(limits, Reference | NameOrReference):
                plain = module_named(plain)
            if plain is not None and isinstance(limits, Range | Reference):
                _check(plain, limits, value)
        return plain
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(map(str, arguments))
            raise _Unusable(f"expected one of {choices}, got {brief(value)}{_meant(value, arguments)}")
        return value
    if origin in (Union, types.UnionType):
        return _first_that_fits(arguments, value)
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise _Unusable(f"expected keys and values, got {brief(value)}")
        return {name: _scalar(arguments[1], each) for name, each in value.items()}
    return _PLAIN[hint](value)


def _builtin(value: Any) -> Any:
    """What Python callers have for text and numbers: paths, and the scalars of NumPy and PyTorch."""
    if isinstance(value, PurePath):
        return str(value)
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _check(plain: Any, limits: Range | Reference, given: Any) -> None:
    if plain not in limits:
        raise _Unusable(f"expected {'a number ' if isinstance(limits, Range) else ''}{limits}, got {brief(given)}")
    if isinstance(limits, Range) and limits.is_open and plain > LARGEST:
        raise _Unusable(f"expected a number of at most {LARGEST:g}, got {brief(given)}")


def _meant(value: object, choices: Iterable[object]) -> str:
    return did_you_mean(value, map(str, choices)) if isinstance(value, str) and len(value) <= SHOWN else ""


def _first_that_fits(hints: tuple[Any, ...], value: Any) -> Any:
    if type(value) in hints:
        return value  # text stays text, even where it reads as a number
    texts, suggestion = [], ""
    for hint in hints:
        try:
            return _scalar(hint, value)
        except _Unusable as problem:
            expected, _, got = str(problem).partition(", got ")
            texts.append(expected.removeprefix("expected "))
            suggestion = suggestion or got.removeprefix(brief(value))
    raise _Unusable(f"expected {' or '.join(dict.fromkeys(texts))}, got {brief(value)}{suggestion}")


def _int(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    raise _Unusable(f"expected a whole number{' of 64 bits' if type(value) is int else ''}, got {brief(value)}")


def _float(value: Any) -> float:
    if isinstance(value, str) and value[:1] in "+-.0123456789":
        with suppress(ValueError):  # YAML 1.1 takes 1e-3, without a point, for text
            value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # a whole number that is too large for one with a point
            if math.isfinite(value):
                return float(value)
    raise _Unusable(f"expected a number, got {brief(value)}")


def _exactly(kind: type, words: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise _Unusable(f"expected {words}, got {brief(value)}")

    return read


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    bool: _exactly(bool, "true or false"),
    str: _exactly(str, "text"),
    types.NoneType: _exactly(types.NoneType, "null"),
}


SECTIONS = (
    *("data", "zoo", "encode", "metanet", "meta-train", "transform", "prune", "sparsify", "finetune", "eval", "decode"),
    *("dhp", "iterate", "search", "sensitivity", "coverage", "export", "bench", "pruning-net"),
)


def sections(path: Path) -> dict[str, Any]:
    """The sections of a params file, by name.

    Raises:
        InputError: the file cannot be read, or a name in it looks like a misspelt section.
    """
    content = read_params(path)
    hints = {name: did_you_mean(name, SECTIONS, cutoff=0.75) for name in content if name not in SECTIONS}
    misspelt = [f"'{name}'{hint}" for name, hint in hints.items() if hint]
    if misspelt:
        raise InputError(
            "Unknown section " + "; ".join(misspelt),
            expected=", ".join(SECTIONS),
            where=path,
            next_step="rename it; your own sections are fine if their names do not resemble these",
        )
    return content


def load_section(
    path: Path | None, section: str, cls: type[Settings], overrides: Mapping[str, Any] | None = None
) -> Settings:
    """One section of a params file as its settings class, ``overrides`` (flags) on top.

    Args:
        path: the file; without one, or without this section in it, the defaults hold.
        section: its name in the file.
        cls: the settings class, whose annotations are the schema.
        overrides: values by key; a mapping goes into a nested section.

    Raises:
        InputError: the file cannot be read, or with every unknown key and unusable value at once.
    """
    values = (sections(path).get(section) if path else None) or {}
    if isinstance(values, Mapping):
        values = merged(values, overrides or {})
    where = " and ".join([*([str(path)] if path else []), *(["the options"] if overrides or not path else [])])
    return parse(cls, values, section=section, where=where)
