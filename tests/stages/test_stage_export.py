from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from exporting_models import SOURCE, Attention, Branching, Depthwise, Pair, pruned, saved
from safetensors import safe_open
from safetensors.torch import load_file

from metaprune_cli.config import ExportFormat, ExportSettings
from metaprune_cli.console.progress import Quiet
from metaprune_cli.errors import InputError, NumericsError
from metaprune_cli.models import Architecture, build, load_model, save_model
from metaprune_cli.stages.export import Exported, export
from metaprune_cli.workflows.export import onnx_file, weights
from metaprune_cli.workflows.export.formats import FORMATS as FILES

FORMATS: tuple[ExportFormat, ...] = ("safetensors", "torch-export", "onnx", "torchscript")


def run(*models: Path, output: Path | None = None, **settings: object) -> tuple[Exported, ...]:
    chosen = ExportSettings(**{"format": FORMATS, **settings})  # type: ignore[arg-type]
    return export(models, output, chosen, source=SOURCE, data=None, progress=Quiet())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def small(folder: Path) -> Path:
    return pruned(saved(Depthwise, folder / "depthwise.safetensors"))


@pytest.fixture(scope="module")
def program(folder: Path) -> Path:
    return pruned(saved(Attention, folder / "attention.safetensors"), route="program")


@dataclass(frozen=True)
class Case:
    """A model and its exports."""

    path: Path
    done: Mapping[ExportFormat, Exported]

    def file(self, form: ExportFormat) -> Path:
        return Path(self.done[form].output)


@pytest.fixture(scope="module")
def of_class(small: Path, folder: Path) -> Case:
    """Without ONNX, which takes seconds; see the test of mappings."""
    formats = tuple(form for form in FORMATS if form != "onnx")
    return Case(small, dict(zip(formats, run(small, output=folder / "out", format=formats), strict=True)))


@pytest.fixture(scope="module")
def of_program(program: Path, folder: Path) -> Case:
    return Case(program, dict(zip(FORMATS, run(program, output=folder / "out"), strict=True)))


@pytest.fixture(params=["class", "program"])
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.getfixturevalue(f"of_{request.param}")
    assert {file.route for file in found.done.values()} == {request.param}
    return found


def test_every_format_computes_what_the_model_does_at_any_batch_size(case: Case) -> None:
    model, images = load_model(case.path, allow_import=True), torch.randn(7, 1, 8, 8)
    assert all(file.error < 1e-5 and file.batches == (1, 4) and file.telling for file in case.done.values())
    with torch.no_grad():
        expected = model(images)
        captured = torch.export.load(case.file("torch-export")).module()(images)
    torch.testing.assert_close(captured, expected)
    with pytest.warns(FutureWarning, match="torch.jit.load"):
        script = torch.jit.load(case.file("torchscript"))
    torch.testing.assert_close(script(images)[0], expected)
    state = load_file(case.file("safetensors"))
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_onnx_takes_any_batch_and_has_the_models_names(of_program: Case) -> None:
    model, images = load_model(of_program.path), torch.randn(7, 1, 8, 8)
    session = onnxruntime.InferenceSession(of_program.file("onnx"), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(torch.from_numpy(session.run(["output"], {"x": images.numpy()})[0]), model(images))
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]


def test_files_are_named_after_the_model(of_program: Case) -> None:
    endings = [".weights.safetensors", ".pt2", ".onnx", ".ts.pt"]
    assert [of_program.file(form).name for form in FORMATS] == [of_program.path.stem + ending for ending in endings]


def test_a_format_knows_its_own_files_only(of_program: Case, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    for form in FORMATS:
        ours = [other for other in FORMATS if FILES[form].is_ours(of_program.file(other))]
        assert ours == [form]
        assert not FILES[form].is_ours(tmp_path / "mine")
        assert not FILES[form].is_ours(of_program.path)


def test_nothing_but_an_export_of_the_same_format_is_replaced(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "net.safetensors"
    (file,) = run(small, output=target, format=("safetensors",))
    assert run(small, output=target, format=("safetensors",)) == (file,)
    target.write_bytes(small.read_bytes())
    with pytest.raises(InputError, match="is not an export of ours in the same format"):
        run(small, output=target, format=("safetensors",))
    assert target.read_bytes() == small.read_bytes()


@pytest.mark.parametrize("name", ["safetensors", "torch-export", "onnx"])
def test_the_same_model_gives_the_same_bytes_and_no_path(small: Path, tmp_path: Path, name: ExportFormat) -> None:
    first, *others = [Path(run(small, output=tmp_path / str(n), format=(name,))[0].output) for n in range(4)]
    assert all(other.read_bytes() == first.read_bytes() for other in others)
    assert str(Path(torch.__file__).parents[1]).encode() not in first.read_bytes()
    assert str(Path(__file__).parent).encode() not in first.read_bytes()


def test_a_file_says_where_it_comes_from(of_program: Case) -> None:
    (entry,) = onnx.load(of_program.file("onnx")).metadata_props
    with safe_open(of_program.file("safetensors"), "pt") as file:
        texts = [entry.value, file.metadata()["metaprune-safetensors"]]
    for about in map(json.loads, texts):
        assert about["made_by"]["command"] == "export"
        assert [step["command"] for step in about["lineage"]] == ["prune"]
        assert about["architecture"]["name"].startswith("exporting_models:")


def test_mappings_whole_numbers_and_tied_weights(folder: Path, tmp_path: Path) -> None:
    done = run(pruned(saved(Pair, folder / "pair.safetensors"), speedup=1.2), output=tmp_path)
    assert {file.route for file in done} == {"class"}
    assert max(file.error for file in done) < 1e-5
    session = onnxruntime.InferenceSession(done[2].output, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["ids", "scale"]
    assert [value.name for value in session.get_outputs()] == ["hidden", "logits"]
    assert [value.shape[0] for value in session.get_inputs()] == ["batch", "batch"]


def test_a_static_batch_is_in_the_file(small: Path, tmp_path: Path) -> None:
    (file,) = run(small, output=tmp_path / "net.pt2", format=("torch-export",), static_batch=3)
    assert (file.batch, file.batches) == (3, (3,))
    module = torch.export.load(file.output).module()
    assert module(torch.randn(3, 1, 8, 8)).shape == (3, 10)
    with pytest.raises(AssertionError, match=r"shape|size"):
        module(torch.randn(2, 1, 8, 8))


def test_weights_say_what_else_was_changed(small: Path, folder: Path) -> None:
    model, original = (
        load_model(small, allow_import=True),
        load_model(folder / "depthwise.safetensors", allow_import=True),
    )
    changed = weights.changed_attributes(model, original)
    assert changed["depth"]["groups"] == model.depth.weight.size(0) < 16
    assert changed["last"]["normalized_shape"] == tuple(model.last.weight.shape)
    assert weights.changed_attributes(original, original) == {}


def test_a_file_that_computes_something_else_is_not_kept(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = run(small, output=tmp_path / "net.pt2", format=("torch-export",))
    content = Path(before.output).read_bytes()
    save = torch.export.save

    def wrong(graph: torch.export.ExportedProgram, *args: object, **kwargs: object) -> None:
        graph.state_dict["head.bias"] = torch.nn.Parameter(graph.state_dict["head.bias"] + 1)
        save(graph, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.export, "save", wrong)
    for target in (tmp_path / "net.pt2", tmp_path / "new.pt2"):
        with pytest.raises(NumericsError, match="does not compute what the model computes") as raised:
            run(small, output=target, format=("torch-export",))
        assert raised.value.details["expected"] == "a relative error of at most 0.0001"
    assert Path(before.output).read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_what_cannot_be_captured_says_so_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    path = saved(Branching, folder / "branching.safetensors")
    with pytest.raises(InputError, match="cannot capture this Branching for any batch size") as raised:
        run(path, output=tmp_path / "out", format=("torch-export",))
    assert "--static-batch 1" in str(raised.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert run(path, output=tmp_path, format=("safetensors",))[0].error == 0


def test_without_the_packages_the_error_is_the_command_that_installs_them(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match="onnxscript missing") as raised:
        run(small, output=tmp_path, format=("torch-export", "onnx"))
    assert "pip install onnxscript" in str(raised.value.details["next step"])
    assert list(tmp_path.iterdir()) == []


SNIPPETS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "deploy.md").read_text(), re.DOTALL)

STRANGER = """
import sys
sys.modules["metaprune_cli"] = None  # whoever imports it fails
import json, pathlib, torch
for snippet in json.loads(pathlib.Path("snippets.json").read_text()):
    name = "mobilenet" if "mobilenet" in snippet else "program"
    images, expected = torch.load(f"{name}.images.pt"), torch.load(f"{name}.expected.pt")
    names = {"images": images}
    exec(snippet, names)
    torch.testing.assert_close(torch.as_tensor(names["outputs"]).detach(), expected, rtol=1e-4, atol=1e-5)
    print("ran")
"""


def test_the_snippets_of_the_docs_run_without_metaprune(of_program: Case, tmp_path: Path) -> None:
    """Each is about ten lines, and computes in plain PyTorch (or ONNX Runtime) what the model computes."""
    torch.manual_seed(0)
    arch = Architecture("torchvision:mobilenet_v2", {}, (3, 32, 32))
    save_model(build(arch), tmp_path / "mobilenet_v2.safetensors", arch=arch)
    mobile = pruned(tmp_path / "mobilenet_v2.safetensors", speedup=2.0)
    run(mobile, output=tmp_path / "mobilenet_v2.pruned-2x.weights.safetensors", format=("safetensors",))
    for file in map(of_program.file, FORMATS):
        shutil.copy(file, tmp_path / file.name.replace(of_program.path.stem, "vit.pruned-2x"))
    for name, path, shape in (("mobilenet", mobile, (2, 3, 32, 32)), ("program", of_program.path, (2, 1, 8, 8))):
        images = torch.randn(shape)
        torch.save(images, tmp_path / f"{name}.images.pt")
        with torch.no_grad():
            torch.save(load_model(path, allow_import=True)(images), tmp_path / f"{name}.expected.pt")
    (tmp_path / "snippets.json").write_text(json.dumps(SNIPPETS))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STRANGER], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["ran"] * len(SNIPPETS) == ["ran"] * 5, done.stderr
    assert all(len(snippet.splitlines()) <= 12 for snippet in SNIPPETS)
