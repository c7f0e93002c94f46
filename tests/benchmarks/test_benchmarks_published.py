"""The bench on public networks, with a tiny network and few images: cells resume, and the tables are made."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from metaprune_cli.methods.metanet import MetaNetwork
from metaprune_cli.models import Architecture, build, save_model

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ARMS = ("plain", "searched", "dhp")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        return {name: __import__(name) for name in ("published", "recipes", "relatives", "schedule")}["published"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with padded shortcuts, and CIFAR-10's files with a few images of noise."""
    folder, draws = tmp_path_factory.mktemp("given"), torch.Generator().manual_seed(0)
    (folder / "cifar-10-batches-bin").mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        records = torch.randint(0, 256, (40, 3073), generator=draws, dtype=torch.uint8)
        records[:, 0] = torch.arange(40) % 10
        (folder / f"cifar-10-batches-bin/{name}.bin").write_bytes(records.numpy().tobytes())
    torch.manual_seed(0)
    architecture = Architecture("cifar:resnet8", {"shortcut": "padded"})
    model = build(architecture)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):  # as of a trained network, no two are the same
            buffer.uniform_(0.5, 1.5)
    save_model(model, folder / "tiny.safetensors", arch=architecture)
    return folder


def run(
    bench: ModuleType, given: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> list[dict[str, object]]:
    """One call of ``run``; all rows that are there then."""
    line = ["published.py", "run", "--data-root", str(given), "--checkpoints", str(given), "--networks", "tiny"]
    line += [
        "--results",
        str(out / "results.jsonl"),
        "--work",
        str(out / "work"),
        "--speedups",
        "2",
        "--batch-size",
        "32",
    ]
    monkeypatch.setattr(sys, "argv", [*line, "--repair-images", "64", "--judging", "32", "--trials", "4", *more])
    bench.main()
    rows = out / "results.jsonl"
    return [json.loads(row) for row in rows.read_text().splitlines()] if rows.exists() else []


def test_slices_end_with_the_figures_of_one_run_and_a_table(bench, given, tmp_path, monkeypatch):
    asked = ("--arms", *ARMS, "--stages", "2")
    at_once = run(bench, given, tmp_path / "once", monkeypatch, *asked, "--minutes", "60")
    assert [(row["arm"], row["stage"]) for row in at_once] == [
        ("whole", "whole"),
        *((arm, "2") for arm in ARMS),
    ]
    assert {row["arm"]: row["widths"]["layer1.0.conv2"] for row in at_once} == dict.fromkeys(("whole", *ARMS), 16)
    assert all(row["achieved"] >= 2 for row in at_once[1:])
    paused = sys.modules["slices"].PausedError
    for _ in range(20):  # every call is over as soon as it may be
        monkeypatch.setattr(bench.Slice, "check", once_more := OneMore(paused))
        in_slices = run(bench, given, tmp_path / "slices", monkeypatch, *asked)
        if not once_more.paused:
            break
    assert len(in_slices) == len(at_once)
    seconds = "seconds_of_last_slice"
    assert [row | {seconds: 0} for row in in_slices] == [row | {seconds: 0} for row in at_once]
    monkeypatch.setattr(
        sys, "argv", ["published.py", "table", "--results", str(tmp_path / "once/results.jsonl"), "-o", str(tmp_path)]
    )
    bench.main()
    tables = (tmp_path / "README.md").read_text()
    assert "### tiny, 2 epochs in all" in tables
    assert f"| whole | {at_once[0]['test_top1']:.2f} |" in tables


class OneMore:
    """Lets the first three questions pass, and then says that the time is over."""

    def __init__(self, error: type[Exception]) -> None:
        self.error, self.left, self.paused = error, 3, False

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            self.paused = True
            raise self.error


def test_another_tools_choice_is_found_in_ours(bench, given, tmp_path, monkeypatch):
    pytest.importorskip("torch_pruning")
    arms = ("tp-group-norm", "tp-group-norm+ls")
    rows = run(bench, given, tmp_path, monkeypatch, "--arms", *arms, "--stages", "bn", "ls", "--minutes", "60")
    assert [(row["arm"], row["stage"]) for row in rows[1:]] == [
        ("tp-group-norm", "bn"),
        ("tp-group-norm+ls", "ls"),
    ]
    assert all(row["achieved"] >= 2 for row in rows[1:])


@pytest.mark.parametrize(
    ("name", "options", "shown"),
    [
        (
            "recipes",
            ("--networks", "tiny", "--speedups", "2", "--epochs", "1", "--recipes", "usual", "teacher 0.9"),
            ["| usual | 1 |", "| teacher 0.9 | 1 |"],
        ),
        (
            "schedule",
            ("--network", "tiny", "--speedup", "2", "--epochs", "2", "--meta-epochs", "1"),
            ["| 0.5 | sensitivity |", "| none | sensitivity |", "| at once | sensitivity |"],
        ),
    ],
)
def test_other_comparisons_are_measured_once_and_shown(
    bench: ModuleType,
    given: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    options: tuple[str, ...],
    shown: list[str],
) -> None:
    script = __import__(name)
    if name == "schedule":  # of everything as little as there can be
        monkeypatch.setattr(script, "BATCHES", 1)
        monkeypatch.setattr(script, "KINDS", script.KINDS[:1])
        monkeypatch.setattr(script, "REMOVALS", {"sensitivity": "least-squares"})
    results = ("--results", str(tmp_path / "results.jsonl"))
    images = ("--data-root", str(given), "--checkpoints", str(given), "--work", str(tmp_path / "work"))
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [name, "run", *images, *results, *options, "--minutes", "60"])
        script.main()
    rows = Path(results[1]).read_text().splitlines()
    assert len(rows) == len(shown)
    monkeypatch.setattr(sys, "argv", [name, "table", *results])
    script.main()
    table = capsys.readouterr().out
    assert all(row in table for row in shown)


def test_a_metanetwork_learns_from_varied_networks(
    bench: ModuleType, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    relatives = sys.modules["relatives"]
    asked = ["--data-root", str(given), "--checkpoints", str(given), "--work", str(tmp_path / "work")]
    asked += ["--varied", "--unruled", "--members", "resnet8-901", "vit-900", "--train-limit", "160"]
    for command in (
        ["make", *asked],
        ["learn", *asked, "--networks", "none", "--epochs", "2", "-o", str(tmp_path / "learnt.safetensors")],
    ):
        monkeypatch.setattr(sys, "argv", ["relatives.py", *command])
        relatives.main()
    plans = torch.load(tmp_path / "work/vit-900-plans-unruled.pt", weights_only=True)
    assert [speedup for speedup, _ in plans] == list(relatives.SPEEDUPS)
    assert len({tuple(left) for _, left in plans}) > 1
    assert MetaNetwork.load(tmp_path / "learnt.safetensors").config.evidence
