"""What the help of every command has: panels, defaults and an example; and options made of settings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Annotated, Any

import pytest
import typer
import typer.core
import typer.main
from cli_calling import call, run
from typer.testing import CliRunner

from metaprune_cli.cli import app, options
from metaprune_cli.cli.examples import EXAMPLES
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import PruneSettings, SparsifySettings
from metaprune_cli.config.choices import Count
from metaprune_cli.config.flags import PANELS, RUN, Flag

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def options_of(command: str) -> list[Any]:
    context = COMMANDS[command].make_context(command, ["--help"], resilient_parsing=True)
    return [one for one in COMMANDS[command].get_params(context) if isinstance(one, typer.core.TyperOption)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_a_panel_and_says_its_default(command: str) -> None:
    panels = [PANELS.index(one.rich_help_panel) for one in options_of(command)]
    assert panels == sorted(panels)
    for one in options_of(command):
        is_switch = one.is_flag and not one.secondary_opts
        assert one.required or is_switch or "Default: " in one.help, one.opts


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_that_can_be_given(command: str) -> None:
    start, name, *words = shlex.split(EXAMPLES[command])
    assert (start, name) == ("metaprune", command)
    assert COMMANDS[command].make_context(name, words).params
    shown = " ".join(run(command, "--help").out.split())
    assert shown.endswith(f"Example: {EXAMPLES[command]}")


def test_a_default_of_a_setting_is_the_one_in_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = run("prune", "--help").out
    assert f"MACs before / MACs after; may be repeated. Default: {PruneSettings.speedup[0]:g}." in shown
    assert (
        f"Largest share of a layer's channels (or heads) that may be removed. Default: {PruneSettings.max_ratio}."
        in shown
    )
    assert (
        "Also set weights of the last layers to zero. Default: --exclude-classifier." in run("sparsify", "--help").out
    )
    assert SparsifySettings.classifier is False


@dataclass(frozen=True)
class Inner:
    """Settings in settings."""

    epochs: Annotated[Count, Flag("How often.", RUN, "N")] = 3


@dataclass(frozen=True)
class Own:
    """Settings of a command that is not there."""

    size: Annotated[tuple[Count, ...], Flag("How large.", RUN, "N", ("--size", "-s"), instead_of=("shape",))] = (1, 2)
    shape: Annotated[tuple[str, ...], Flag("Or what.", RUN)] = ()
    round: Annotated[bool, Flag("Rounded.", RUN, names=("--round/--square",))] = True
    hidden: Count = 5
    inner: Inner = Inner()


def given(*words: str, section: Section | None = None) -> list[Any]:
    """What a command with these settings gets of a call; the settings, and the size by itself."""
    seen: list[Any] = []

    def own(*, settings: Own, size: list[int] | None = None, params: Any = None) -> None:
        seen.extend([settings, size])

    kind = Annotated[Own, section or Section("own")]
    own.__annotations__ = {"settings": kind, "size": list[int] | None, "params": options.Params, "return": None}
    own_app = typer.Typer()
    own_app.command()(unfolded(own))
    result = CliRunner().invoke(own_app, list(words))
    return seen if not result.exit_code else [result.stderr]


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_options_are_those_settings_that_have_a_flag() -> None:
    assert given() == [Own(), None]
    assert given("-s", "4", "--size", "5", "--square") == [Own(size=(4, 5), round=False), [4, 5]]
    assert "No such option" in str(given("--hidden", "3")[0])


def test_options_are_on_top_of_the_file_and_speak_for_others(tmp_path: Any) -> None:
    (tmp_path / "params.yaml").write_text("own: {size: 7, shape: [a, b], round: false, hidden: 6}")
    read = Own(size=(7,), shape=("a", "b"), round=False, hidden=6)
    assert given()[0] == read
    assert given("--round")[0] == replace(read, round=True)
    assert given("--size", "8")[0] == replace(read, size=(8,), shape=())
    assert given("--size", "8", "--shape", "c")[0] == replace(read, size=(8,), shape=("c",))


def test_a_section_may_have_some_of_its_options_under_other_names() -> None:
    some = Section("own", only={"times": "inner.epochs", "size": "size"}, read={"size": lambda sizes: [sizes[0] + 1]})
    assert given("--times", "9", "--size", "1", section=some) == [Own(size=(2,), inner=Inner(9)), [1]]
    assert "No such option" in str(given("--round", section=some)[0])


def test_an_option_that_no_command_has_is_no_option() -> None:
    refused = call("prune", "x", "--colour", "red")
    assert refused.code == 2
    assert "No such option: --colour" in refused.err
    assert "take" not in refused.err
