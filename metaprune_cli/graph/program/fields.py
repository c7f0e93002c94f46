"""What a model returned under names, where its class is not at hand: a file names fields, it never makes a class."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, KeysView
from typing import Any

from torch.utils import _pytree as pytree

from metaprune_cli.errors import CorruptFileError


class Fields(tuple):  # type: ignore[type-arg]
    """The values of a named tuple or dataclass: by attribute, by key, by position, in order.

    Its fields are attributes before they are anything else, so that one called ``count`` is found; the attributes of
    Python's own objects (``__class__`` …) can be no fields.
    """

    def __new__(cls, title: str, fields: Iterable[tuple[str, Any]]) -> Fields:
        """Values by field, under the name that their class had."""
        named = dict(fields)
        new = super().__new__(cls, tuple(named.values()))
        new.__dict__.update(named)
        new.__dict__["_fields"], new.__dict__["_title"] = tuple(named), title
        return new

    def __getitem__(self, key: Any) -> Any:
        """By name or position."""
        return self.__dict__[key] if isinstance(key, str) else super().__getitem__(key)

    def keys(self) -> KeysView[str]:
        """The names, so that ``dict(fields)`` and ``**fields`` work."""
        return dict.fromkeys(self.__dict__["_fields"]).keys()

    def with_values(self, values: Iterable[Any]) -> Fields:
        """The same with other values."""
        return Fields(self.__dict__["_title"], zip(self.__dict__["_fields"], values, strict=True))

    def __repr__(self) -> str:
        fields = self.__dict__["_fields"]
        return f"{self.__dict__['_title']}({', '.join(f'{name}={self[name]!r}' for name in fields)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Fields, (self.__dict__["_title"], tuple(zip(self.__dict__["_fields"], self, strict=True)))


def checked_fields(title: Any, fields: list[tuple[Any, Any]]) -> Fields:
    """Fields as a file names them.

    Raises:
        CorruptFileError: a name is none, or is there twice.
    """
    names = [name for name, _ in fields]
    if not isinstance(title, str) or not title.isidentifier() or len(title) > 200:
        title = Fields.__name__
    for name in names:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or len(name) > 200:
            raise CorruptFileError("A field of what the program returns has no name.", got=repr(name)[:100])
    if len(set(names)) < len(names) or any(name.startswith("__") or name in ("_fields", "_title") for name in names):
        raise CorruptFileError("The fields of what the program returns cannot be told apart.", got=repr(names)[:100])
    return Fields(title, fields)


pytree.register_pytree_node(
    Fields,
    lambda fields: (list(fields), (fields.__dict__["_title"], fields.__dict__["_fields"])),
    lambda values, named: Fields(named[0], zip(named[1], values, strict=True)),
    serialized_type_name="metaprune.Fields",
    to_dumpable_context=lambda named: [named[0], list(named[1])],
    from_dumpable_context=lambda named: (named[0], tuple(named[1])),
)
