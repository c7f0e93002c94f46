"""Opening, describing and writing models never holds them twice; peaks of resident memory, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json
import sys
from pathlib import Path

import torch

from metaprune_cli import save_model
from metaprune_cli.config import EncodeSettings
from metaprune_cli.models import Architecture, build
from metaprune_cli.stages.decode import decode
from metaprune_cli.stages.encode import encode
from metaprune_cli.stages.inspect import inspect
from metaprune_cli.workflows.loading import ModelSource
from metaprune_cli.training.progress import Silence

quiet = {"source": ModelSource(), "progress": Silence()}
unseen = {"settings": EncodeSettings(), "data": None, "device": torch.device("cpu")}


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def peak(size, work, *arguments, **keywords):
    before = status("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")
    work(*arguments, **keywords)
    return (status("VmHWM:") - before) / size


def make(folder, width):
    architecture = Architecture("cifar:vgg11_bn", {"width": width}, (3, 32, 32))
    model = build(architecture)
    torch.save(model.state_dict(), folder / "m.pt")
    size = (folder / "m.pt").stat().st_size
    return size, peak(size, save_model, model, folder / "m.safetensors", arch=architecture)


def run(folder, width):
    folder.mkdir()
    size, saved = make(folder, width)
    return {
        "save": saved,
        "encode": peak(size, encode, [folder / "m.safetensors"], folder / "g.safetensors", **unseen, **quiet),
        "encode a state dict": peak(size, encode, [folder / "m.pt"], folder / "g.safetensors", **unseen, **quiet),
        "decode": peak(size, decode, [folder / "g.safetensors"], folder / "d.safetensors", **quiet),
        "inspect": peak(size, inspect, folder / "m.safetensors"),
        "inspect a graph": peak(size, inspect, folder / "g.safetensors"),
    }


torch.set_num_threads(1)
torch.manual_seed(0)
run(Path(sys.argv[1]) / "tiny", 1 / 8)
print(json.dumps(run(Path(sys.argv[1]) / "large", 1.4)))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured as Linux knows them")
def test_peaks_of_a_model_of_70_mb(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peaks = json.loads(done.stdout)
    wanted = {"save": 0.4, "encode": 1.5, "encode a state dict": 1.5, "decode": 1.5, "inspect": 0.4}
    assert {name: peaks[name] for name in wanted if peaks[name] > wanted[name]} == {}, peaks
    assert peaks["inspect a graph"] < 0.6, peaks
