from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

import metaprune_cli
from metaprune_cli.config import DataSettings, EvalSettings, PruneSettings
from metaprune_cli.console.progress import Quiet
from metaprune_cli.data import load_test
from metaprune_cli.errors import InputError
from metaprune_cli.metrics.macs import count_macs
from metaprune_cli.models import Architecture, build, load_model, save_model
from metaprune_cli.stages.eval import Evaluation, evaluate
from metaprune_cli.stages.prune import prune
from metaprune_cli.workflows.loading import ModelSource

DATA = DataSettings(train_limit=100, batch_size=50)
SETTINGS = EvalSettings(latency_runs=2, curve=(1.5, 3.0), batches=1)
RESNET = Architecture("cifar:resnet8", {"in_channels": 1, "image_size": 8, "num_classes": 10, "width": 0.5}, (1, 8, 8))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two untrained models, ``net-0`` and ``net-1``."""
    folder = tmp_path_factory.mktemp("zoo")
    for seed in range(2):
        torch.manual_seed(seed)
        save_model(build(RESNET), folder / f"net-{seed}.safetensors", arch=RESNET)
    return folder


@pytest.fixture(scope="module")
def pruned(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both models at two speed-ups."""
    folder = tmp_path_factory.mktemp("pruned")
    settings = PruneSettings(speedup=(1.5, 2.0))
    source = ModelSource()
    prune([zoo], folder, settings, source=source, data=None, device=torch.device("cpu"), progress=Quiet())
    return folder


def run(
    *paths: Path, output: Path | None = None, base: Path | None = None, pruning: PruneSettings | None = None
) -> Evaluation:
    device = torch.device("cpu")
    return evaluate(
        paths,
        output,
        SETTINGS,
        base=base,
        pruning=pruning,
        source=ModelSource(),
        data=DATA,
        device=device,
        progress=Quiet(),
    )


def test_each_model_is_measured_against_its_own_base(zoo: Path, pruned: Path) -> None:
    rows = run(pruned, base=zoo).rows
    by_name = {row.name: row for row in rows}
    assert len(rows) == 6
    for row in rows:
        base = by_name[row.base]
        assert row.origin == base.name
        assert row.speedup == base.macs / row.macs
        assert row.score.samples == len(load_test(DATA))
    assert {row.requested for row in rows} == {None, 1.5, 2.0}
    assert all(row.speedup >= row.requested for row in rows if row.requested)


def test_figures_are_those_of_the_counters(zoo: Path) -> None:
    (row,) = run(zoo / "net-0.safetensors").rows
    model = load_model(zoo / "net-0.safetensors")
    assert row.macs == count_macs(model, torch.zeros(1, 1, 8, 8))
    assert row.params == sum(parameter.numel() for parameter in model.parameters())
    assert row.file_bytes == (zoo / "net-0.safetensors").stat().st_size
    assert row.latency_p10_ms is not None
    assert row.latency_ms is not None
    assert row.latency_p90_ms is not None
    assert row.latency_p10_ms <= row.latency_ms <= row.latency_p90_ms


def test_a_model_that_is_also_the_base_is_measured_once(zoo: Path) -> None:
    rows = run(zoo, base=zoo / "." / "net-1.safetensors").rows
    assert sorted(row.name for row in rows) == ["net-0", "net-1"]
    assert {row.base for row in rows} == {"net-1"}


def test_curves_start_from_unpruned_models_only(zoo: Path, pruned: Path) -> None:
    rows = run(zoo, pruned, pruning=PruneSettings()).rows
    points = [row for row in rows if row.step == "recalibrated"]
    assert {(row.origin, row.requested, row.arm) for row in points} == {
        (f"net-{n}", s, arm) for n in range(2) for s in (1.5, 3.0) for arm in ("plain", "uniform")
    }
    assert len({row.name for row in points}) == len(points)
    assert all(row.latency_ms is None and row.file_bytes is None for row in points)


def test_the_scope_of_the_pruning_is_the_arm(zoo: Path, tmp_path: Path) -> None:
    settings = PruneSettings(speedup=(2.0,), scope="family")
    prune([zoo], tmp_path, settings, source=ModelSource(), data=None, device=torch.device("cpu"), progress=Quiet())
    assert {row.arm for row in run(tmp_path, base=zoo).rows if row.step == "pruned"} == {"uniform"}


def test_a_curve_of_pruned_models_alone_is_refused(pruned: Path) -> None:
    with pytest.raises(InputError, match="all of them are pruned already"):
        run(pruned, pruning=PruneSettings())


def test_the_report_is_written_and_replaced(zoo: Path, pruned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    for _ in range(2):
        written = run(zoo, pruned, output=folder, pruning=PruneSettings()).written
    assert sorted(folder.iterdir()) == sorted(written)
    figures = json.loads((folder / "summary.json").read_text())
    assert figures["pruned"]["plain"]["2x"]["models"] == 2
    headline = json.loads((folder / "metrics.json").read_text())
    assert headline["plain"] == {label: f["top1"] for label, f in figures["recalibrated"]["plain"].items()}
    assert (folder / "curve-pruned.csv").read_text().startswith("speedup,plain,uniform,metanet,pruningnet,dhp\n1.5,")


def test_a_file_in_place_of_the_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "report"
    file.write_text("mine")
    with pytest.raises(InputError, match="needs a folder"):
        run(tmp_path / "missing.safetensors", output=file)
    assert file.read_text() == "mine"


def test_the_document_is_strict_json(zoo: Path) -> None:
    json.dumps(run(zoo).to_document(), allow_nan=False)


@pytest.mark.parametrize(
    ("name", "readers"),
    [("load_test", {"tasks/classification.py"}), ("test", {"stages/eval.py", "api/evaluate.py"})],
)
def test_the_test_split_is_read_by_eval_alone(name: str, readers: set[str]) -> None:
    """Through the task, whose method ``test`` nobody else calls."""
    root = Path(metaprune_cli.__file__).parent
    found = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", ""))
    }
    assert found == readers
