"""All that is tried on one model, step by step, in a process of its own.

``python -m metaprune_cli.workflows.coverage.trial FOLDER`` reads ``FOLDER/trial.json`` and keeps
``FOLDER/row.json`` up to date, so that whatever ends the process, the row says how far it came.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metaprune_cli.config import CoverageSettings, PruneSettings
from metaprune_cli.errors import InputError, MetapruneError, TargetError
from metaprune_cli.graph import NeuronGraph, decode, encode
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.slicing import params_of
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.metrics.macs import count_macs, count_params
from metaprune_cli.models import save_model
from metaprune_cli.pruning.targets import Target
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.coverage import beyond, making, proofs
from metaprune_cli.workflows.coverage.entry import Entry
from metaprune_cli.workflows.coverage.process import ROW, TRIAL
from metaprune_cli.workflows.coverage.random_weights import randomise_, settle_
from metaprune_cli.workflows.paths import replace_file
from metaprune_cli.workflows.planning import prune_to
from metaprune_cli.workflows.pruning import Pruned, PruningRun

_BEYOND = {"batch": "takes no batch", "length": "takes no other length", "generates": "does not generate"}
NEARLY_ONE = 1.02
"""A speed-up that is not worth trying where the one asked for is out of reach."""


class _NotInstalledError(Exception):
    """A module that a model is built with."""


class Trial:
    """One model on its way through the steps."""

    def __init__(self, entry: Entry, settings: CoverageSettings, folder: Path) -> None:
        self.entry = entry
        self.settings = settings
        self.folder = folder
        self.row: dict[str, Any] = {"step": "build", "reasons": [], "speedups": []}
        self._saved: dict[Path, Any] = {}
        self._started = time.monotonic()

    def run(self) -> None:
        """Go through all steps; what fails is in the row."""
        try:
            self._steps()
        except _NotInstalledError as error:
            self._note(failed=False, skipped=True, reasons=[f"the module {error} is not installed"])
            return
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with a model is what the row is to say
            self._note(failed=True, error=_described(error), traceback=traceback.format_exc()[-4000:])
            return
        self._note(step="done", failed=False)

    def _steps(self) -> None:
        subject = self._made()
        model = subject.model
        randomise_(model, self.settings.seed)
        model.eval()
        subject = self._sized(subject)
        inputs = making.inputs_of(subject)
        settle_(model, proofs.two_of(inputs))
        self._note(step="encode", params=count_params(model))
        started = time.monotonic()
        graph = encode(model, inputs)
        self._note(step="decode", encode_s=time.monotonic() - started, **_described_graph(graph))
        self._decode(graph, model)
        self._note(step="count", bits=True)
        self._count(graph, model, inputs)
        for requested in self.settings.speedup:
            self._note(step=f"prune to {requested:g}x")
            self._prune(requested, subject, graph, inputs)
        del model, graph, subject
        if self._saved:
            self._note(step="load in a fresh process")
            proofs.load_alike(self._saved, inputs, self.folder)
            self._note(saved=True)

    def _made(self) -> making.Subject:
        """The model; what a table's entry needs to be built shows only when it is."""
        try:
            return making.made(self.entry, self.settings.seed)
        except ModuleNotFoundError as error:
            if self.entry.table is None:
                raise
            raise _NotInstalledError(error.name) from error

    def _sized(self, subject: making.Subject) -> making.Subject:
        """With the size of image that the settings want, where the model takes one image and one of this size."""
        size, architecture = self.settings.image_size, subject.architecture
        usual = None if architecture is None else architecture.input_shape
        if size is None or architecture is None or usual is None or len(usual) != 3:
            return subject
        wanted = replace(subject, architecture=replace(architecture, input_shape=(usual[0], size, size)))
        try:
            inputs = making.inputs_of(wanted)
            proofs.runs(subject.model, inputs, training=False)
            proofs.runs(copied(subject.model), proofs.two_of(inputs), training=True)
        except Exception:  # noqa: BLE001 - whatever a model says to images of another size
            return subject
        return wanted

    def _decode(self, graph: NeuronGraph, model: nn.Module) -> None:
        path = self.folder / "graph.safetensors"
        graph.save(path)
        try:
            proofs.same_state(decode(NeuronGraph.load(path), model), model)
        finally:
            path.unlink()
        gc.collect()

    def _count(self, graph: NeuronGraph, model: nn.Module, inputs: ExampleInputs) -> None:
        counted = count_macs(model, inputs)
        if counted != graph.macs:
            raise InputError("The graph's MACs are not the counter's.", expected=counted, got=graph.macs)

    def _prune(self, requested: float, subject: making.Subject, graph: NeuronGraph, inputs: ExampleInputs) -> None:
        started = time.monotonic()
        model = subject.model
        pruned = self._pruned(requested, model, graph, inputs)
        if pruned is None:
            self.row["speedups"].append({"requested": requested, "achieved": None})
            return
        report = pruned.report
        figures = {
            "requested": requested,
            "achieved": pruned.plan.speedup,
            "params": pruned.plan.params_after,
            "route": report.get("route", "class"),
            "error": report["check"]["error"],
            "how": report["check"].get("how"),
        }
        if figures["error"] is None:
            self._because(f"not comparable with the masked original: {report['check']['reason']}")
        self._note(step=f"run at {requested:g}x in eval mode")
        computed = proofs.runs(pruned.model, inputs, training=False)
        self._note(step=f"run at {requested:g}x in train mode")
        figures["trained"] = proofs.trains(model, pruned.model, inputs)
        if figures["trained"] is not None:
            self._because(f"cannot be trained as it is: {figures['trained']}")
        if requested == max(self.settings.speedup):  # as costly as everything else together: once
            self._note(step=f"compare at {requested:g}x in train mode")
            figures |= proofs.training_error(model, pruned, graph, inputs)
        if figures.get("training_reason"):
            self._because(f"train mode not compared: {figures['training_reason']}")
        figures |= self._beyond(requested, subject, pruned, graph, inputs)
        self._note(step=f"save at {requested:g}x")
        path = self.folder / f"{requested:g}x.safetensors"
        if subject.architecture is None:
            self._because(f"not saved: the file has no function {self.entry.name} by which it could be built again")
        else:
            save_model(pruned.model, path, arch=subject.architecture)
            self._saved[path] = computed
        figures["seconds"] = time.monotonic() - started
        self.row["speedups"].append(figures)

    def _beyond(
        self, requested: float, subject: making.Subject, pruned: Pruned, graph: NeuronGraph, inputs: ExampleInputs
    ) -> dict[str, Any]:
        """Another batch, another length, text that is generated: each ``yes``, ``no`` and why, or None."""
        model, found = subject.model, {}
        self._note(step=f"run a batch at {requested:g}x")
        found["batch"] = beyond.other_batch(model, pruned, graph, inputs)
        self._note(step=f"run another length at {requested:g}x")
        found["length"] = beyond.other_length(model, pruned, graph, inputs, subject.other)
        self._note(step=f"generate at {requested:g}x")
        found["generates"] = beyond.generates(model, pruned.model, inputs)
        for what, answer in found.items():
            if answer not in (None, beyond.YES):
                self._because(f"{_BEYOND[what]}: {answer.removeprefix('no: ')}")
        return found

    def _pruned(self, requested: float, model: nn.Module, graph: NeuronGraph, inputs: ExampleInputs) -> Pruned | None:
        """Pruned to what is asked for, or to the most that is feasible; None where next to nothing is."""
        settings = PruneSettings(max_ratio=self.settings.max_ratio)
        run = PruningRun(model, inputs, graph, settings, Calibration.none(settings))
        try:
            return prune_to(run, Target("macs", factor=requested))
        except TargetError as error:
            feasible = error.feasible
            self._because(f"{requested:g}x is out of reach: " + _reach(feasible, self.row))
            if feasible is None or feasible < NEARLY_ONE:
                return None
            return prune_to(run, Target("macs", factor=feasible))

    def _because(self, reason: str) -> None:
        if reason not in self.row["reasons"]:
            self.row["reasons"].append(reason)

    def _note(self, **figures: Any) -> None:
        """Put figures into the row, and the row on disk."""
        self.row.update(figures)
        self.row["seconds"] = time.monotonic() - self._started
        self.row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        replace_file(self.folder / ROW, lambda part: part.write_text(json.dumps(self.row), encoding="utf-8"))


def _reach(feasible: float | None, row: Mapping[str, Any]) -> str:
    reasons = ", ".join(row["locked_reasons"][:3])
    most = "nothing can be removed" if feasible is None else f"{feasible:g}x is the most"
    return f"{most}, {row['locked']} of {row['families']} families are locked ({reasons})"


def _described_graph(graph: NeuronGraph) -> dict[str, Any]:
    """Families, what is locked and why (most frequent first), and the share of the parameters that can go."""
    families = graph.units.families
    reasons = [family.locked for family in families if family.locked is not None]
    everything = torch.ones(graph.units.num_units, dtype=torch.bool)
    before, rest = params_of(graph, everything), params_of(graph, ~graph.units.prunable)
    return {
        "macs": graph.macs,
        "families": len(families),
        "locked": len(reasons),
        "locked_reasons": sorted(dict.fromkeys(reasons), key=reasons.count, reverse=True),
        "verbatim": sorted({r for n, r in graph.verbatim.items() if n in graph.trainable}),
        "prunable_share": 1 - rest / before if before else 0.0,
    }


def _described(error: Exception) -> str:
    if isinstance(error, MetapruneError):
        return " ".join([error.what, *(f"{label}: {text};" for label, text in error.lines() if label != "next step")])
    return f"{type(error).__name__}: {error}"


def main(arguments: Sequence[str]) -> None:
    """Try the model that the folder's ``trial.json`` names."""
    folder = Path(arguments[0])
    given = json.loads((folder / TRIAL).read_text(encoding="utf-8"))
    settings = CoverageSettings(**{**given["settings"], "speedup": tuple(given["settings"]["speedup"])})
    Trial(Entry.from_document(given["entry"]), settings, folder).run()


if __name__ == "__main__":
    main(sys.argv[1:])
