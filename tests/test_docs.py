"""What README and docs say is so: commands parse, links lead somewhere, pictures are those of the figures."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from test_tutorials import EXAMPLE, Block, blocks_of, missing

import metaprune
import metaprune_cli
from metaprune_cli.cli import app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
OTHERS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("examples/**/*.md"))]
PAGES = [*OTHERS, *sorted(DOCS.rglob("*.md"))]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EXPERIMENT, TESTS = "pip install -e . && dvc repro", "pip install -e '.[test]' && pytest"
ENDS = {"|", "||", "&&", ";", ">", "2>&1", "&", "<"}
LEFT_OUT = re.compile(r"(?:\s|^)(?:…|\.\.\.)(?=\s|$)")
FILLED = re.compile(r"\$\([^()]*\)|\$\{?\w+\}?|(?<=\s)[A-Z](?=\s|$)")
"""What the shell, or the reader, puts something in place of."""


def lines_of(page: str) -> list[str]:
    """The lines of a page's shell, each whole: in a fence of ``bash``, or indented."""
    fenced = "\n".join(block.text for block in blocks_of(page) if block.language == "bash")
    rest = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    whole = re.sub(r"\\\n\s*", " ", f"{rest}\n```\n{fenced}")
    prose, _, shell = whole.partition("\n```\n")
    return [*re.findall(r"^    +(.*)", prose, re.MULTILINE), *shell.splitlines()]


def calls_of(page: str) -> list[list[str]]:
    """Every call of ``metaprune`` in a page's shell, as words; the shell's variables count as 1."""
    found = []
    for line in lines_of(page):
        for part in re.split(r"; do |&& |; ", line):
            begins = re.match(r"(?:! |\$ |[A-Z_]+=\S+ )*metaprune (?=[a-z])", part.strip())
            if begins:
                words = shlex.split(FILLED.sub("1", LEFT_OUT.sub("", part.strip()[begins.end() :])), comments=True)
                end = next((n for n, word in enumerate(words) if word in ENDS), len(words))
                found.append(words[:end])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_shown_can_be_given(page: Path) -> None:
    for name, *words in calls_of(page.read_text()):
        context = COMMANDS[name].make_context(name, words)
        assert context.params, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_that_is_named_is_one(page: Path) -> None:
    assert set(re.findall(r"`metaprune ([a-z][a-z-]*)", page.read_text())) <= set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_name_of_the_python_api_is_one(page: Path) -> None:
    text = page.read_text()
    assert set(re.findall(r"\bmp\.([A-Za-z_]\w*)", text)) <= set(metaprune.__all__)
    for block in blocks_of(text):
        if block.language == "python":
            compile(block.text, page.name, "exec")


def test_a_call_is_found_among_what_the_shell_does() -> None:
    page = """
    for m in x; do metaprune prune "$m" \\
        -s 2; done
    $ A=1 metaprune eval x … --json | jq '.a'  # so
"""
    assert calls_of(page) == [["prune", "1", "-s", "2"], ["eval", "x", "--json"]]


def test_readme_has_the_two_commands_that_are_run() -> None:
    ran = (ROOT / ".ci" / "run").read_text()
    for command in (EXPERIMENT, TESTS):
        assert f"\n    {command}\n" in README
        assert f'step "{command}" ' in ran


def test_readme_names_every_command_once() -> None:
    assert sorted(re.findall(r"^\| `metaprune ([a-z-]+)` \|", README, re.MULTILINE)) == sorted(COMMANDS)


def test_readmes_own_model_is_the_one_that_the_guide_runs() -> None:
    guide = blocks_of((DOCS / "start.md").read_text())
    shown = [block for block in blocks_of(README) if block.language in ("bash", "python")]
    assert len(shown) == 2
    assert {block.text for block in shown} <= {block.text for block in guide}
    outputs = [block for block in blocks_of(README) if block.language == "text"]
    for said, came in zip([block for block in guide if block.language == "text"], outputs, strict=True):
        assert missing(Block("text", EXAMPLE, said.text), came.text) is None


@pytest.mark.parametrize("page", OTHERS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Those of docs/ are checked where the site is built."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_pictures_are_drawn_from_what_was_measured() -> None:
    code = "import draw, json; print(json.dumps({name: make() for name, make in draw.DRAWN.items()}))"
    command = (sys.executable, "-c", code)
    ran = subprocess.run(command, cwd=DOCS / "pictures", check=True, capture_output=True, text=True, timeout=60)
    drawn = json.loads(ran.stdout)
    assert drawn == {path.stem: path.read_text() for path in (DOCS / "pictures").glob("*.svg")}


def test_the_citation_is_of_this_version() -> None:
    assert f"\nversion: {metaprune_cli.__version__}\n" in (ROOT / "CITATION.cff").read_text()
