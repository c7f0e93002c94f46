"""The rules that a machine can hold: one name a subcommand, short files, no architecture by name, imports downward."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Container
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest
import typer.main
import yaml

from metaprune_cli.cli import app
from metaprune_cli.methods.registry import methods

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metaprune_cli"
SHORT_NAME = ROOT / "metaprune"
COMMANDS = tuple(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
STAGES = ("zoo", "encode", "meta-train", "transform", "pruning-net", "prune", "search", "dhp", "finetune", "eval")
WITH_SETTINGS = tuple(name for name in STAGES if name != "encode")
SHARED_SECTIONS = ("data", "metanet")
ARCHITECTURES = (
    r"resnet|resnext|vgg|alexnet|mobilenet|densenet|squeezenet|inception|googlenet|efficientnet|regnet|mnasnet"
    r"|shufflenet|convnext|swin|maxvit|vit_|_vit\b|vision_?transformer"
)
DEFAULTS_AND_HELP = {"config/training.py", "cli/options.py", "cli/examples.py"}
CLASSIFICATION = r"cross_entropy|top1|top5|num_classes"
OF_CLASSES = {"data/source.py", "data/splits.py", "data/digits.py", "data/cifar.py"}
"""The readers of labelled images, which say how many classes they have."""


def sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def test_these_are_the_commands() -> None:
    others = {
        "compress",
        "sparsify",
        "iterate",
        "sensitivity",
        "decode",
        "inspect",
        "coverage",
        "export",
        "bench",
        "env",
        "list",
        "init",
    }
    assert set(COMMANDS) == {*STAGES, *others}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_one_name_everywhere(command: str) -> None:
    file = f"{command.replace('-', '_')}.py"
    assert (PACKAGE / "cli" / file).is_file()
    assert (PACKAGE / "stages" / file).is_file()
    quoted = re.compile(rf"""["']{command}["']""")
    tests = [path for path in sources(ROOT / "tests") if path != Path(__file__)]
    assert any(quoted.search(path.read_text()) for path in tests), f"no test calls {command}"


def test_stages_and_sections_bear_the_commands_names() -> None:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert tuple(stages) == STAGES
    for name, stage in stages.items():
        body = stage.get("do", stage)
        assert body["cmd"].startswith(f"metaprune {name} ")
        assert set(body.get("params", ())) <= {*SHARED_SECTIONS, *WITH_SETTINGS}
    assert set(yaml.safe_load((ROOT / "params.yaml").read_text())) == {*SHARED_SECTIONS, *WITH_SETTINGS}


@pytest.mark.parametrize("folder", [".", "restoration"])
def test_what_a_stage_depends_on_exists(folder: str) -> None:
    stages = yaml.safe_load((ROOT / folder / "dvc.yaml").read_text())["stages"]
    bodies = [stage.get("do", stage) for stage in stages.values()]
    code = {name for body in bodies for name in body["deps"] if "metaprune_cli/" in name}
    assert len(code) > 10
    assert [name for name in sorted(code) if not (ROOT / folder / name).exists()] == []


def test_the_restoration_pipeline_has_the_same_stages_and_sections() -> None:
    folder = ROOT / "restoration"
    stages = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    assert tuple(stages) == tuple(name for name in STAGES if name != "pruning-net")
    for name, stage in stages.items():
        assert stage.get("do", stage)["cmd"].startswith(f"metaprune {name} ")
    sections = {*SHARED_SECTIONS, *WITH_SETTINGS} - {"pruning-net"}
    for task in ("denoising", "super-resolution"):
        assert set(yaml.safe_load((folder / f"{task}.yaml").read_text())) == sections


def test_files_are_short() -> None:
    files = [*sources(PACKAGE), *sources(SHORT_NAME), *sources(ROOT / "tests")]
    assert {path.name: lines for path in files if (lines := len(path.read_text().splitlines())) > 400} == {}


def test_the_short_name_holds_no_code_of_its_own() -> None:
    """``import metaprune`` is ``metaprune_cli`` by another name: it imports that package and nothing else of ours."""
    (file,) = sources(SHORT_NAME)
    imported = {
        name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    assert imported == {"__future__", "typing", "metaprune_cli"}
    assert not [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ClassDef)]


def test_nothing_is_called_utils() -> None:
    assert [path for path in sources(ROOT) if re.search("utils?$|helpers?$", path.stem)] == []


def test_no_architecture_is_known_by_name_outside_models() -> None:
    found = []
    for path in sources(PACKAGE):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith("models/") or name in DEFAULTS_AND_HELP:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            is_source = "paper" in line  # a constant names where it comes from
            if re.search(ARCHITECTURES, line, re.IGNORECASE) and not is_source:
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == []


WAYS_OUT = {
    r"^\s*(import|from) csv\b": {"console/sheet.py"},
    r"\bsaxutils\b|\bhtml\.escape\b|\btostring\(": {"console/markup.py", "graph/drawing/svg.py"},
    r"(?<![.\w])print\(": {"methods/metanet/selfcheck.py"},
    r"\bsys\.(stdout|stderr)\b": {"cli/edge.py", "cli/run.py"},
    r"\btyper\.(echo|secho|style)\b|\bclick\.": {"cli/__init__.py"},
    r"\bsavefig\(": {"reports/png.py"},
    r"\bjinja2\b.*import|import.*\bjinja2\b|\bMarkup\(|__html__": set(),
    r"\btraceback\.print_|\blogging\.(basicConfig|StreamHandler)|\bos\.write\(": set(),
}
"""What could write for people → the files beside those of console/ that do, with text from console/text."""


def test_nothing_writes_for_people_past_the_console() -> None:
    found = {way: set() for way in WAYS_OUT}
    for path in sources(PACKAGE):
        name = path.relative_to(PACKAGE).as_posix()
        for way, allowed in WAYS_OUT.items():
            if re.search(way, path.read_text(), re.MULTILINE) and (name in allowed or not name.startswith("console/")):
                found[way].add(name)
    assert found == WAYS_OUT


@pytest.mark.parametrize("path", sources(PACKAGE / "console"), ids=lambda path: path.stem)
def test_what_the_console_writes_passes_through_text(path: Path) -> None:
    """A file that has rich, csv, XML or a stream has a function of ``text`` too."""
    code = path.read_text()
    writes = re.search(r"^\s*(import|from) (rich|csv|xml)\b|\bsys\.std(out|err)\b", code, re.MULTILINE)
    assert not writes or "from metaprune_cli.console.text import" in code


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.jinja")), ids=lambda path: path.stem)
def test_no_template_lets_text_in_as_it_is(path: Path) -> None:
    assert re.findall(r"\|\s*safe\b|\bautoescape\b|\bMarkup\b", path.read_text()) == []


def test_text_files_have_one_encoding_everywhere() -> None:
    calls = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sources(PACKAGE)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "write_text"
        if "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert calls == []


def test_what_models_are_for_is_known_to_tasks_alone() -> None:
    """Nothing else says cross-entropy or top-1, or counts classes."""
    found = []
    for path in sources(PACKAGE):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("tasks/", "models/")) or name in OF_CLASSES:
            continue
        lines = enumerate(path.read_text().splitlines(), 1)
        found += [f"{name}:{number}: {line.strip()}" for number, line in lines if re.search(CLASSIFICATION, line)]
    assert found == []


PYTHON_API = {"__init__.py", "api/compress.py", "api/dhp.py", "api/prune.py", "api/pruning_net.py"}


def test_methods_are_known_to_the_registry_alone() -> None:
    """To it, to the commands that are a method's own, and to the Python API, which takes metanetworks."""
    commands = {name for one in methods() for name in (one.command, one.learnt and one.learnt.made_by) if name}
    allowed = PYTHON_API | {f"stages/{name.replace('-', '_')}.py" for name in commands}
    found = set()
    for path in sources(PACKAGE):
        name = path.relative_to(PACKAGE).as_posix()
        named = re.search(r"methods\.(?!base\b|registry\b)\w|(?<!`)\bMetaNetwork", path.read_text())
        if named and not name.startswith("methods/"):
            found.add(name)
    assert found <= allowed


def test_arms_and_reports_have_a_methods_words_from_its_row() -> None:
    words = {word for method in methods() for word in (method.name, method.noun, method.done)}
    places = [*sources(PACKAGE / "reports"), *(PACKAGE / "workflows" / f"{name}.py" for name in ("arms", "lineage"))]
    assert [path.name for path in places for word in words if f'"{word}' in path.read_text()] == []


@pytest.mark.parametrize("path", sources(ROOT / "benchmarks"), ids=lambda path: path.stem)
def test_what_benchmarks_import_is_there(path: Path) -> None:
    """They run for minutes, so nothing else calls them here."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metaprune_cli"):
            module = import_module(str(node.module))
            for name in (alias.name for alias in node.names):
                assert hasattr(module, name) or import_module(f"{node.module}.{name}")


def imports(path: Path, modules: Container[str]) -> set[str]:
    """What a file imports of ``modules``, inside functions and under TYPE_CHECKING too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules else str(node.module) for name in inner}
    return {name for name in found if name in modules}


def circle_in(package: Path) -> list[str]:
    """Modules each of which imports the next, the last of them the first; none where there is no circle."""
    files = {path.relative_to(package.parent).with_suffix(""): path for path in sources(package)}
    modules = {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}
    graph = {name: imports(path, modules) - {name} for name, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_one_that_imports_it() -> None:
    assert circle_in(PACKAGE) == []


@pytest.mark.parametrize(
    "line",
    [
        "import package.above",
        "from package import above",
        "from package.above import name",
        "def late():\n    from package.above import name",
        "if TYPE_CHECKING:\n    from package.above import name",
    ],
)
def test_a_circle_is_found(line: str, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "above.py").write_text("from package.below import other", encoding="utf-8")
    (package / "below.py").write_text("import os", encoding="utf-8")
    assert circle_in(package) == []
    (package / "below.py").write_text(line, encoding="utf-8")
    assert {"package.above", "package.below"} <= set(circle_in(package))


@dataclass(frozen=True)
class Mutation:
    """A line that breaks the architecture, where it is put, and the contract that must say so."""

    file: str
    line: str
    contract: str


MUTATIONS = {
    "graph looks up": Mutation("graph/units.py", "import metaprune_cli.pruning.plan", "Floors"),
    "training calls a stage": Mutation("training/loop.py", "import metaprune_cli.workflows.made", "Floors"),
    "maths prints": Mutation("training/loop.py", "import rich", "The maths knows no terminal"),
    "maths parses": Mutation("graph/encode.py", "import typer", "The maths knows no terminal"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_import_rules_catch(mutation: str, tmp_path: Path) -> None:
    change = MUTATIONS[mutation]
    shutil.copytree(PACKAGE, tmp_path / "metaprune_cli", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint_imports(tmp_path).returncode == 0
    with (tmp_path / "metaprune_cli" / change.file).open("a") as file:
        file.write(f"\n{change.line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode == 1
    assert re.search(rf"{change.contract}.* BROKEN", done.stdout)


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, timeout=120)
