"""Which part of a file is the model's state dict: what people save beside it is told apart, never mixed in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from metaprune_cli.errors import InputError

_USUAL = ("state_dict", "model", "model_state_dict", "net", "params")
"""Which is meant where several are there: the first of these."""
_DEEPEST = 4
_LISTED = 10

Part = Mapping[Any, Any] | nn.Module


def chosen(content: object, path: Path, key: str | None = None) -> tuple[Part, list[str]]:
    """The state dict, or the module, in what was read; and what was said about the choice.

    Args:
        content: of the file.
        path: the file, for messages.
        key: which of several to take: ``ema``, ``model.state_dict``, or what the names begin with (``teacher``).

    Raises:
        InputError: there is none, none of that name, or several and nothing says which.
    """
    found = dict(_parts(content, "", set()))
    if key is not None:
        return _named(found, content, key, path)
    if "" in found:
        return found[""], []
    if not found:
        raise _none(content, path)
    name = next((name for usual in _USUAL for name in found if name.split(".")[0] == usual), None)
    if name is None and len(found) > 1:
        raise InputError(
            "The file contains several state dicts; choose one.",
            expected="one of them",
            got=_listing(found),
            where=path,
            next_step=f"--key {next(iter(found))}",
        )
    name = name or next(iter(found))
    others = [other for other in found if other != name]
    beside = f" (the file also has {_listing(others)}; choose it with --key)" if others else ""
    return found[name], [f"using entry {name}{beside}"]


def _parts(content: object, name: str, seen: set[int]) -> Iterator[tuple[str, Part]]:
    """Every state dict and module in nested mappings, by its dotted name; a dictionary can be inside itself."""
    if id(content) in seen or name.count(".") > _DEEPEST:
        return
    seen.add(id(content))
    if isinstance(content, nn.Module):
        yield name, content
    elif isinstance(content, Mapping):
        tensors = sum(isinstance(value, Tensor) for value in content.values())
        if tensors and 2 * tensors >= len(content):
            yield name, content
            return
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, Mapping | nn.Module):
                yield from _parts(value, f"{name}.{key}" if name else key, seen)


def _named(found: Mapping[str, Part], content: object, key: str, path: Path) -> tuple[Part, list[str]]:
    if key in found:
        others = [name for name in found if name != key]
        return found[key], [f"using entry {key}" + (f", of {_listing([key, *others])}" if others else "")]
    inside = {name: part for name, part in found.items() if name.startswith(f"{key}.")}
    if len(inside) == 1:
        name, part = next(iter(inside.items()))
        return part, [f"using entry {name}"]
    whole = found.get("")
    if isinstance(whole, Mapping):
        prefix = f"{key}."
        below = {name.removeprefix(prefix): value for name, value in whole.items() if str(name).startswith(prefix)}
        if below:
            return below, [f"using the {len(below)} of {len(whole)} entries that begin with {prefix}"]
    keys = [str(name) for name in content] if isinstance(content, Mapping) else []
    raise InputError(
        f"There is no state dict under {key!r} in the file.",
        expected=_listing(found) if found and "" not in found else "a key of the file, or what its names begin with",
        got=f"the keys {_listing(keys)}" if keys else f"a {type(content).__name__}",
        where=path,
        next_step="choose one of them with --key, or leave it out",
    )


def _none(content: object, path: Path) -> InputError:
    got = f"a {type(content).__name__}"
    if isinstance(content, Mapping):
        inside = [f"{str(key)[:100]}: {type(value).__name__}" for key, value in content.items()]
        got = "; ".join(inside[:_LISTED]) or "nothing"
    return InputError(
        "The file contains no state dict.",
        expected="names and tensors, at the top level or under a key",
        got=got,
        where=path,
        next_step="save torch.save(model.state_dict(), path) and name the architecture with --arch",
    )


def _listing(names: Any) -> str:
    listed = [name[:100] for name in names]
    return ", ".join(listed[:_LISTED]) + (", ..." if len(listed) > _LISTED else "")
