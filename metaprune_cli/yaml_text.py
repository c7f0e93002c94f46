"""Reading YAML that anybody may have written: its size, depth and what its aliases stand for are bounded."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from metaprune_cli.errors import InputError
from metaprune_cli.places import check_readable

MOST_BYTES = 1 << 18
MOST_NODES = 20_000
"""Scalars, lists and mappings, where every alias counts as all that it stands for."""
DEEPEST = 40
LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


def read_text(path: Path, what: str, most_bytes: int = MOST_BYTES) -> str:
    """A text file's content, as UTF-8.

    Args:
        path: the file.
        what: it is, in words, for messages.
        most_bytes: a larger file is not opened.

    Raises:
        InputError: it cannot be read, is no regular file, is larger, or is no text.
    """
    check_readable(path, what)
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise InputError(
                f"{what} is too large.", expected=f"at most {most_bytes} bytes", got=f"{size} bytes", where=path
            )
        with path.open("rb") as file:
            return file.read(most_bytes).decode("utf-8")
    except OSError as error:
        raise InputError(f"{what} cannot be read.", got=error.strerror, where=path) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} is not text in UTF-8.", got=f"{error.reason} at byte {error.start}", where=path
        ) from error


def read_yaml(path: Path, what: str) -> Any:
    """A YAML file's content: mappings, lists, text, numbers, true, false and null.

    Args:
        path: the file.
        what: it is, in words, for messages.

    Raises:
        InputError: it cannot be read, is no valid YAML, has a key twice or tags of objects, or is out of proportion.
    """
    return parse_yaml(read_text(path, what), what, path)


def parse_yaml(text: str, what: str, where: Path) -> Any:
    """The content of a YAML text; arguments and errors are those of ``read_yaml``."""
    try:
        return yaml.load(text, _BoundedLoader)
    except yaml.YAMLError as error:
        raise InputError(f"{what} is not valid YAML.", got=error, where=where) from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:  # of `!!int` before no number
        raise InputError(
            f"{what} is not valid YAML.", got=f"a value that its tag does not allow: {error}", where=where
        ) from error


class _BoundedLoader(yaml.SafeLoader):
    """The safe loader, which stops where a document is out of proportion or would be understood in two ways."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node; the depth is that of lists and mappings around it."""
        if self._depth > DEEPEST:
            raise _refused(parent, f"more than {DEEPEST} levels of lists and mappings")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The document's node, once it is known to be of bearable size."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _measured(node, {})
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping whose keys are all different."""
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise _refused(key, f"the key {key.value[:LONGEST_NUMBER]!r} a second time")
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_OPEN = -1


def _measured(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many nodes a node stands for, aliases written out.

    Raises:
        YAMLError: too many, a node inside itself, a number of too many digits, or text that cannot be written.
    """
    known = sizes.get(id(node))
    if known == _OPEN:
        raise _refused(node, "an alias inside what it stands for")
    if known is not None:
        return known
    sizes[id(node)] = _OPEN
    size = 1
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
    else:
        below = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        for part in below:
            size += _measured(part, sizes)
            if size > MOST_NODES:
                raise _refused(node, f"more than {MOST_NODES} values, aliases written out")
    sizes[id(node)] = size
    return size


def _check_scalar(node: yaml.ScalarNode) -> None:
    if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise _refused(node, f"a number of {len(node.value)} characters")
    try:
        node.value.encode("utf-8")
    except UnicodeEncodeError:
        raise _refused(node, "half of a surrogate pair, which is not a character") from None


def _refused(where: Any, found: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=f"found {found}", problem_mark=where.start_mark)
