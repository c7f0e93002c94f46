"""Files of text from templates: every value is escaped for the kind of file as it goes in, whatever it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Filters = Mapping[str, Callable[[Any], str]]


def render(template: Path, escape: Callable[[str], str], filters: Filters | None = None, **values: object) -> str:
    """The text of a template, a jinja2 file.

    Args:
        template: its path; autoescape is on, a name without a value is an error.
        escape: text as it stands in a file of this kind; numbers go in as they are.
        filters: further ways to write text, by name: what they return is not escaped again.
        **values: by name.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def finalize(value: object) -> object:
        is_plain = isinstance(value, str) and not hasattr(value, "__html__")
        return Markup(escape(value)) if is_plain else value  # type: ignore[arg-type]

    environment = Environment(
        loader=FileSystemLoader(template.parent, encoding="utf-8"),
        autoescape=True,
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name, write in (filters or {}).items():
        environment.filters[name] = lambda text, write=write: Markup(write(text))
    return environment.get_template(template.name).render(values)
