"""Suites of packages by name, tables of models, and what is asked of a model beyond one input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from metaprune_cli.config import CoverageSettings
from metaprune_cli.errors import InputError
from metaprune_cli.models import suites
from metaprune_cli.workflows.coverage import beyond, making, report
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.process import try_model
from metaprune_cli.workflows.coverage.suite import missing_package, read_suite

SETTINGS = CoverageSettings(speedup=(1.5,), timeout_s=100, memory_gb=8)
TABLE = """
import torch
from torch import nn

class Fixed(nn.Module):
    '''Takes sequences, and any length of them; what is made of it may not.'''
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 16), nn.Linear(16, 4)
    def forward(self, x):
        return self.two(self.one(x).relu())

def mlp():
    return Fixed()

def elsewhere():
    import no_such_package_anywhere

def headed():
    return mlp()

MODELS = {
    "mlp": dict(
        lib="torch", kind="plain", build=mlp, inputs=lambda: torch.randn(1, 6, 8), alt=lambda: torch.randn(1, 3, 8)
    ),
    "nameless": dict(lib="torch", kind="plain", build=mlp, inputs=lambda: torch.randn(1, 6, 8), alt=None),
    "headed": dict(lib="a heading, no package", kind="plain", build=mlp, inputs=lambda: torch.randn(1, 6, 8), alt=None),
    "elsewhere": dict(lib="torch", kind="odd", build=elsewhere, inputs=None, alt=None),
}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "table_of_models.py"
    path.write_text(TABLE)
    return path


def test_suites_by_name_are_data() -> None:
    assert set(suites.names()) == {
        "audio",
        "detection",
        "diffusion",
        "graphs",
        "medical",
        "segmentation",
        "timm",
        "transformers",
    }
    for name in suites.names():
        entries = read_suite(name)
        assert len(entries) >= 5
        assert all(entry.package for entry in entries), name


def test_a_table_is_read_only_if_it_may_be_run(file: Path) -> None:
    with pytest.raises(InputError, match="only running the file can read") as caught:
        read_suite(str(file))
    assert any("--allow-import" in line for _, line in caught.value.lines())
    entries = read_suite(str(file), allow_import=True)
    assert [(entry.name, entry.task, entry.package) for entry in entries] == [
        ("mlp", "plain", "torch"),
        ("nameless", "plain", "torch"),
        ("headed", "plain", "a heading, no package"),
        ("elsewhere", "odd", "torch"),
    ]


@pytest.mark.parametrize("text", ["MODELS = {}\nraise RuntimeError('on purpose')", "MODELS = 3"])
def test_a_table_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad_table.py").write_text(text)
    with pytest.raises(InputError, match="table MODELS of the suite cannot be read"):
        read_suite(str(tmp_path / "bad_table.py"), allow_import=True)


def test_a_model_of_a_table(file: Path) -> None:
    rows = {e.name: try_model(e, SETTINGS, file.parent) for e in read_suite(str(file), allow_import=True)}
    (done,) = rows["mlp"]["speedups"]
    assert rows["mlp"]["status"] == "ok", rows["mlp"]
    assert (done["batch"], done["length"], done["generates"]) == ("yes", "yes", None)
    assert (rows["mlp"]["bits"], rows["mlp"]["saved"]) == (True, True)
    assert rows["nameless"]["status"] == "partly"
    assert "not saved: the file has no function nameless" in report.because(rows["nameless"])
    assert rows["headed"]["status"] == "ok"  # what a table calls its library need not be what it is installed as
    assert rows["elsewhere"]["status"] == "skipped"
    assert "module no_such_package_anywhere is not installed" in report.because(rows["elsewhere"])
    assert report.summary(list(rows.values())) == "4 models: 2 ok, 1 partly, 0 failed, 1 skipped"
    text = report.markdown({"rows": list(rows.values()), "versions": {}, "command": "metaprune coverage"})
    (line,) = (line for line in text.splitlines() if line.startswith("| mlp |"))
    assert line.count("| yes ") == 5


def test_inputs_are_data() -> None:
    found = making.tensors_of({"x": [2, 3], "ids": {"below": 5, "shape": [1, 4]}, "time": {"value": [10]}})
    assert isinstance(found, dict)
    assert found["x"].shape == (2, 3)
    assert 0 <= int(found["ids"].min()) <= int(found["ids"].max()) < 5
    assert found["time"].tolist() == [10]
    with pytest.raises(InputError, match="does not say what a model takes"):
        making.tensors_of([{"size": 3}])


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((1, 12), (1, 8)), ((1, 3, 8, 8), (1, 3, 12, 12)), ((1, 40), (1, 60)), ((1, 1, 4, 4, 4), (1, 1, 6, 6, 6))],
)
def test_other_lengths(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    given = torch.zeros(shape, dtype=torch.int64) if shape == (1, 12) else torch.zeros(shape)
    first = next(beyond.others(given))
    assert isinstance(first, torch.Tensor)
    assert (first.shape, first.dtype) == (wanted, given.dtype)


def test_what_generates_differently_with_its_cache_is_found() -> None:
    class Writes(nn.Module):
        def __init__(self, honest: bool) -> None:
            super().__init__()
            self.honest = honest

        def can_generate(self) -> bool:
            return True

        def generate(self, *, input_ids: torch.Tensor, use_cache: bool, **how: Any) -> torch.Tensor:
            return input_ids + (use_cache and not self.honest)

    good, bad, inputs = Writes(True), Writes(False), {"input_ids": torch.zeros(1, 3, dtype=torch.int64)}
    assert beyond.generates(good, good, inputs) == "yes"
    assert beyond.generates(good, bad, inputs) == "no: the cache changes what is generated"
    assert beyond.generates(good, nn.Linear(1, 1), inputs) == "no: it is a program, which has no generate"
    assert beyond.generates(nn.Linear(1, 1), nn.Linear(1, 1), inputs) is None


def test_a_package_is_missing_or_not() -> None:
    assert missing_package(Entry("a", "b:c")) is None
    assert missing_package(Entry("a", "b:c", package="torch")) is None
    assert missing_package(Entry("a", "b:c", package="no-such-package-anywhere")) == "no-such-package-anywhere"
