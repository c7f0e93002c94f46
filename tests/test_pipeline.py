"""The whole pipeline with tiny settings, in a temporary clone of the working tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TINY = {
    "data": {"dataset": "digits", "train_limit": 200, "batch_size": 100},
    "zoo": {
        "members": [{"arch": "cifar:resnet8", "arch_args": {"width": 0.25}, "count": 2, "heldout": 2}],
        "validation": 1,
        "train": {"epochs": 1},
    },
    "metanet": {"layers": 1, "hidden": 4},
    "meta-train": {"epochs": 2, "batches": 1, "batch_size": 50, "validate_every": 1},
    "transform": {"recalibrate": True},
    "prune": {"speedup": [1.5, 2], "repair": "least-squares", "repair_images": 64},
    "pruning-net": {"epochs": 1},
    "search": {"population": 2, "iterations": 1, "front": True, "leaders": 1, "images": 32, "verify": 32},
    "dhp": {"epochs": 4, "remove_every": 1},
    "finetune": {"epochs": 5, "lr": 0.01},
    "eval": {"latency_runs": 2, "curve": [1.5, 2]},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the working tree's files, with tiny settings, in which the pipeline has run once.

    Without the lock of a run in the working tree itself: in a new clone there is none.
    """
    folder = tmp_path_factory.mktemp("clone") / "metaprune"
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name not in ("", "dvc.lock") and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY))
    call("git", "init", "--quiet", cwd=folder)
    call("git", "add", "--all", cwd=folder)
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    call("git", *identity, "commit", "--quiet", "--message", "clone", cwd=folder)
    dvc("repro", cwd=folder)
    return folder


def call(*command: str, cwd: Path) -> str:
    """The command's output; its whole output is in the failure."""
    # The clone's package and this environment's scripts, whether or not the project is installed.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(cwd), "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def dvc(*arguments: str, cwd: Path) -> str:
    return call(sys.executable, "-m", "dvc", *arguments, cwd=cwd)


def test_a_second_run_has_nothing_to_do(clone: Path) -> None:
    assert "up to date" in dvc("repro", cwd=clone)
    assert dvc("status", "dvc.yaml", "--json", cwd=clone).strip() == "{}"


def test_git_sees_no_output_but_the_lock(clone: Path) -> None:
    assert call("git", "status", "--porcelain", cwd=clone).split() == ["??", "dvc.lock"]


def test_the_report_compares_all_arms_at_every_speedup(clone: Path) -> None:
    report = clone / "data" / "report"
    assert {path.name for path in report.iterdir()} == {
        "report.md",
        "report.html",
        "metrics.json",
        "summary.json",
        "models.csv",
        "curve-finetuned.csv",
        "curve-recalibrated.csv",
        "curve-pruned.csv",
        "curve.png",
    }
    figures = json.loads((report / "summary.json").read_text())
    for step in ("recalibrated", "pruned", "finetuned"):
        arms = ("metanet",) if step == "recalibrated" else ("metanet", "pruningnet", "dhp")
        minus = [f"{arm}_minus_{baseline}" for arm in arms for baseline in ("plain", "uniform")]
        minus = [name for name in minus if not (step == "pruned" and "dhp" in name)]  # it has been trained by then
        searched = () if step == "recalibrated" else ("searched",)
        for column in ("plain", "uniform", *searched, *arms, *minus):
            assert set(figures[step][column]) == {"1.5x", "2x"}, (step, column)
    assert figures["finetuned"]["metanet_minus_uniform"]["2x"]["pairs"] == 2
    assert figures["finetuned"]["plain"]["2x"]["speedup"] >= 2
    assert figures["unpruned"]["plain"]["models"] == 2


def test_dvc_shows_metrics_and_plots(clone: Path, tmp_path: Path) -> None:
    shown = json.loads(dvc("metrics", "show", "--json", cwd=clone))
    files = shown[""]["data"]  # those of pipelines that have not run are there without data
    (headline,) = (file["data"] for file in files.values() if "data" in file)
    methods, baselines = ("metanet", "pruningnet", "dhp"), ("plain", "uniform", "searched")
    differences = {f"{method}_minus_{baseline}" for method in methods for baseline in baselines}
    assert set(headline) == {"unpruned", *baselines, *methods} | differences
    assert set(headline["metanet"]) == {"1.5x", "2x"}
    dvc("plots", "show", "--out", str(tmp_path / "plots"), cwd=clone)
    assert (tmp_path / "plots" / "index.html").is_file()


def test_dvc_draws_every_stage(clone: Path) -> None:
    drawn = dvc("dag", "--mermaid", cwd=clone)
    stages = ("zoo", "encode", "meta-train", "transform", "prune@plain", "prune@uniform", "finetune@meta", "eval")
    assert all(stage in drawn for stage in stages)


def test_an_experiment_with_other_speedups_runs_only_what_depends_on_them(clone: Path) -> None:
    ran = dvc("exp", "run", "--set-param", "prune.speedup=[2]", cwd=clone)
    assert "Running stage 'prune@meta'" in ran
    assert "Running stage 'zoo'" not in ran
    assert "Running stage 'meta-train'" not in ran
    figures = json.loads((clone / "data" / "report" / "metrics.json").read_text())
    assert set(figures["metanet"]) == {"2x"}
