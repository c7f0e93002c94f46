"""``sensitivity``: the table, the files, and rules that ``prune`` takes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from cli_calling import TINY, call, run

from metaprune_cli.reports.png import is_png


def test_a_family_alone_costs_what_pruning_it_alone_does(model: Path, tmp_path: Path) -> None:
    found = run("sensitivity", model, "--ratio", "0.5", "--ratio", "0.25", "--json", "-q").json["models"][0]
    assert [sorted(row["drops"]) for row in found["families"]] == [["0.25", "0.5"]] * len(found["families"])
    assert found["criterion"] == "group-l2"
    # the same removal by prune, measured on the same images by drop=...: nothing else may go
    name, units = found["families"][1]["family"], found["families"][1]["units"]
    others = [("--rule", f"{row['family']}: ignore") for row in found["families"] if row["family"] != name]
    only = (*(text for pair in others for text in pair), "--rule", f"{name}: min_ratio=0.5, max_ratio=0.5")
    pruned = tmp_path / "small.safetensors"
    run("prune", model, "-s", "1.01", *only, "-o", pruned)
    small = run("sensitivity", pruned, "--json", "-q").json["models"][0]
    assert units == 2 * next(row["units"] for row in small["families"] if row["family"] == name)
    assert found["top1"] - small["top1"] == pytest.approx(found["families"][1]["drops"]["0.5"])


def test_the_rules_are_taken_by_prune(model: Path, tmp_path: Path) -> None:
    run("sensitivity", model, "--max-drop", "30", "-o", tmp_path / "sens", "-q")
    assert sorted(path.name for path in (tmp_path / "sens").iterdir()) == [
        "rules.yaml",
        "sensitivity.csv",
        "sensitivity.png",
    ]
    with (tmp_path / "sens" / "sensitivity.csv").open() as file:
        rows = list(csv.DictReader(file))
    rules = yaml.safe_load((tmp_path / "sens" / "rules.yaml").read_text())
    assert [rule["match"] for rule in rules["prune"]["rules"]] == [row["family"] for row in rows]
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(TINY | {"prune": {"speedup": 1.1} | rules["prune"]}))
    plan = run("prune", model, "--params", params, "--dry-run", "--json").json["models"][0]
    allowed = {row["family"]: float(row["bearable"]) for row in rows}
    gone = {row["name"]: 1 - row["after"] / row["before"] for row in plan["families"]}
    assert all(gone[name] <= allowed[name] + 1e-3 for name in allowed)


def test_all_models_are_drawn_in_one_picture(work: Path, model: Path, tmp_path: Path) -> None:
    run("sensitivity", model, "zoo/train/resnet8-0.safetensors", "-q", "--draw", tmp_path / "new" / "two.png")
    assert is_png(tmp_path / "new" / "two.png")
    ran = call("sensitivity", model, "--draw", tmp_path / "two.svg")
    assert ran.code == 2
    assert "The picture must be a PNG file" in ran.err


def test_a_file_in_the_way_is_said_before_any_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    ran = call("sensitivity", model, "-o", tmp_path / "taken")
    assert ran.code == 2
    assert (tmp_path / "taken").read_text() == "mine"
