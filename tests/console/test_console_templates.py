"""Templates: whatever goes in is escaped for the kind of file, and nothing is left out in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import TemplateSyntaxError, UndefinedError

from metaprune_cli.console.templates import render
from metaprune_cli.console.text import markdown, markdown_code, quoted


def made(folder: Path, text: str, **values: object) -> str:
    (folder / "a.jinja").write_text(text, encoding="utf-8")
    return render(folder / "a.jinja", markdown, {"code": markdown_code, "quoted": quoted}, **values)


def test_every_value_is_escaped_once(tmp_path: Path) -> None:
    assert made(tmp_path, "{{ a }} {{ a | code }} {{ a ~ '' }}", a="<b> *x*") == r"&lt;b> \*x\* `<b> *x*` &lt;b> \*x\*"


def test_what_comes_from_a_loop_a_macro_or_a_condition_is_escaped_too(tmp_path: Path) -> None:
    text = "{% macro m(a) %}{{ a }}{% endmacro %}{% for a in all %}{{ m(a) }}{{ a if a else '' }}{% endfor %}"
    assert made(tmp_path, text, all=["*"]) == r"\*\*"


def test_a_value_is_no_template(tmp_path: Path) -> None:
    assert made(tmp_path, "{{ a }}", a="{{ b }}{% c %}") == "{{ b }}{% c %}"


def test_numbers_are_as_they_are_and_the_last_line_ends(tmp_path: Path) -> None:
    assert made(tmp_path, "{% if a %}\n  {{ a }}\n{% endif %}\n", a=-2.5) == "  -2.5\n"


def test_a_name_without_a_value_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="'missing' is undefined"):
        made(tmp_path, "{{ missing }}")
    with pytest.raises(TemplateSyntaxError):
        made(tmp_path, "{% if %}")
