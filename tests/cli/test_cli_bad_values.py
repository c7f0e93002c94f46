"""Every option of every command with values that nobody means: refused or carried out, never a traceback or a hang."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import typer.core
import typer.main
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.cli import app

BUILT = typer.main.get_command(app)
COMMANDS: dict[str, Any] = BUILT.commands  # type: ignore[attr-defined]
ALLOWED = (0, 2, 3, 4)
HUGE = f"1{'0' * 20}"
NUMBERS = ("", "-1", "0", "nan", "inf", "1e400", "1e18", str(10**12), HUGE, str(2**70), "9" * 5000, "0x10", "٣")
WORDS = (
    "",
    " ",
    "\0",
    "x" * 5000,
    "nan",
    "-1",
    f"x={HUGE}",
    "x=1e999",
    "x=nan",
    "10**9,10**9",
    "1000000000,1000000000",
    "=",
)
WORDS_OF: dict[str, tuple[str, ...]] = {
    "device": ("foo", "cuda:99", "cuda:-1", f"cuda:{HUGE}", "cuda:³", "cpu:1"),
    "batch": ("1,", "1,-1", HUGE),
    "pattern": ("2:4:8", "4:2", "0:0", f"1:{HUGE}"),
    "block": ("0x0", "4", f"1x{HUGE}"),
    "target": ("macs", "macs=0x", f"params={HUGE}x", "size=-1MB", "latency=nanms", "drop=inf"),
    "rule": ("x", "*: max_ratio=nan", f"*: min_units={HUGE}", "re:(: ignore", "re:(a+)+$: ignore", "type:: ignore"),
    "criterion": ("a:b", "os:getcwd", "metanet:", "no.such:thing"),
    "arch": ("cifar:", "torchvision:../x", ":", "a:b:c", "os:getcwd", "cifar:resnet8"),
}
SMALL = TINY | {
    "meta-train": TINY["meta-train"] | {"epochs": 1},
    "finetune": {"epochs": 1, "lr": 0.01},
    "iterate": {"rounds": 1, "epochs": 1},
    "pruning-net": {"epochs": 1},
    "search": {"population": 2, "iterations": 1, "images": 20, "verify": 20, "leaders": 1, "repair_images": 20},
    "sensitivity": {"ratios": [0.5], "images": 50},
}  # type: ignore[operator]


@pytest.fixture(autouse=True)
def built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are not made out of their functions anew for every call, which takes longer than most calls."""
    monkeypatch.setattr("typer.testing._get_command", lambda _: BUILT)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return odd_places(tmp_path_factory.mktemp("p"))


def odd_places(folder: Path) -> tuple[str, ...]:
    """Paths of which none is a file that could be read or replaced."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "socket"))
    (folder / "loop").symlink_to("loop")
    (folder / "dangling").symlink_to("nothing")
    (folder / "damaged").write_bytes(b"\0")
    names = ("pipe", "socket", "loop", "dangling", "damaged", "n" * 250, "no/such/file", "damaged/below")
    return ("", "/dev/zero", "/dev/null", str(folder), *(str(folder / name) for name in names))


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """For each command what it is called with besides the option; in a folder with settings for little work."""
    folder = tmp_path_factory.mktemp("values")
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("params.yaml").write_text(yaml.safe_dump(SMALL))
        run("zoo", "-o", "zoo", "--epochs", "1")
        model = "zoo/heldout/resnet8-3.safetensors"
        run("encode", model, "-o", "g.graph.safetensors")
        of_models = (
            "encode",
            "transform",
            "prune",
            "sparsify",
            "finetune",
            "dhp",
            "search",
            "iterate",
            "sensitivity",
            "eval",
            "export",
            "bench",
        )
        yield {
            **{name: [model] for name in of_models},
            "zoo": ["import", model],
            "compress": [model, "--epochs", "0"],
            "pruning-net": [model, "-o", "net.safetensors"],
            "decode": ["g.graph.safetensors"],
            "inspect": ["g.graph.safetensors"],
            "meta-train": ["g.graph.safetensors", "--validation", "g.graph.safetensors", "-o", "meta.safetensors"],
            "coverage": ["--only", "none"],
            "list": ["datasets"],
            "init": ["project"],
            "env": [],
        }
    finally:
        os.chdir(before)


def options_of(command: str, places: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Every option that takes a value, and the values to try."""
    found = {}
    hints = get_type_hints(COMMANDS[command].callback)
    for option in COMMANDS[command].params:
        if isinstance(option, typer.core.TyperOption) and not option.is_flag and option.name in hints:
            kinds = types_in(hints[option.name])
            words = (*WORDS, *WORDS_OF.get(option.name, ()))
            found[option.opts[0]] = NUMBERS if kinds & {int, float} else places if Path in kinds else words
    return found


def types_in(hint: Any) -> set[Any]:
    return {hint}.union(*map(types_in, get_args(hint)))


def test_every_command_is_tried(arguments: dict[str, list[str]]) -> None:
    assert arguments.keys() == COMMANDS.keys()


def ended_badly(words: list[str], options: dict[str, tuple[str, ...]]) -> list[tuple[object, ...]]:
    """The options and values with which a call ends in a traceback, or in an exit code that no error has."""
    wrong: list[tuple[object, ...]] = []
    for option, values in options.items():
        for value in values:
            ran = call(*words, option, value)
            if ran.code not in ALLOWED or "Traceback" in ran.err:
                wrong.append((option, value[:40], ran.code, ran.err[-300:]))
    return wrong


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_of_any_option_ends_in_a_traceback(
    command: str, arguments: dict[str, list[str]], places: tuple[str, ...]
) -> None:
    """Each option with the first command that has it: most are shared."""
    before = list(COMMANDS)[: list(COMMANDS).index(command)]
    tried = {option: values for other in before for option, values in options_of(other, places).items()}
    options = {name: values for name, values in options_of(command, places).items() if tried.get(name) != values}
    assert ended_badly([command, *arguments[command]], options) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_of_any_option_of_any_command_ends_in_a_traceback(
    command: str, arguments: dict[str, list[str]], places: tuple[str, ...]
) -> None:
    assert ended_badly([command, *arguments[command]], options_of(command, places)) == []


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("env", "coverage", "zoo", "init", "list")]
)
def test_no_place_as_an_input_ends_in_a_traceback(command: str, tmp_path: Path) -> None:
    more = ["-o", "meta.safetensors"] if command == "meta-train" else []
    for place in odd_places(tmp_path):
        ran = call(command, place, *more)
        assert ran.code in (2, 4), (place, ran.err)
        assert "Traceback" not in ran.err
