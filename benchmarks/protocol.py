"""Is a model better pruned through the metanetwork? Every arm, equal epochs, several seeds, the test images once.

    python benchmarks/protocol.py MODELS --params FILE -o OUT [--metanet FILE] [--short 2] [--full 10]
        [--seeds 0 1 2] [--arms plain …] [--jobs 0]

Runs the commands a user would, on every model of the folder MODELS, into the folder OUT; what is there already is not
made again (delete OUT to start anew). ``prune.speedup`` of the parameters names the speed-ups, their section
``finetune`` everything but epochs. Three figures for each arm: before finetuning (BatchNorm measured anew), after
``--short`` and after ``--full`` epochs. Epochs count from the trained model on, whatever they are spent for: arms that
train before pruning spend half of them on that. At the end ``metaprune eval`` reads the test images, once, and writes
OUT/report.

Arms without a metanetwork: ``plain`` and ``uniform`` (group-l2, global and by family), ``group-l1``, ``bn-scale``,
``taylor``, ``random`` (all global), and ``sparse``: DepGraph's sparse learning (reg 5e-4), then plain. With
``--metanet``: ``metanet``, ``metanet-group-l2`` (what its score head says is not asked), and ``metanet-finetuned``, the
paper's order (transform, finetune, prune, finetune).
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SPARSITY = "5e-4"


@dataclass(frozen=True)
class Arm:
    """How models are prepared and their units ranked.

    Attributes:
        metanet: whether they go through the metanetwork.
        prepare: options of the finetuning before they are pruned; None: there is none.
        ranking: options of the pruning.
    """

    metanet: bool = False
    prepare: tuple[str, ...] | None = None
    ranking: tuple[str, ...] = ()


ARMS = {
    "plain": Arm(ranking=("--scope", "global")),
    "uniform": Arm(ranking=("--scope", "family")),
    **{name: Arm(ranking=("--criterion", name)) for name in ("group-l1", "bn-scale", "taylor", "random")},
    "sparse": Arm(prepare=("--sparsity", SPARSITY), ranking=("--scope", "global")),
    "metanet": Arm(metanet=True),
    "metanet-group-l2": Arm(metanet=True, ranking=("--criterion", "group-l2")),
    "metanet-finetuned": Arm(metanet=True, prepare=()),
}


class Protocol:
    """The commands, in order; each is printed before it runs."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.measured: list[Path] = [given.models]

    def call(self, *words: str | Path) -> None:
        """One command of metaprune."""
        line = ["metaprune", *map(str, words), "--params", str(self.given.params), "--quiet"]
        print(shlex.join(line), flush=True)
        subprocess.run([sys.executable, "-m", "metaprune_cli", *line[1:]], check=True, stdout=subprocess.DEVNULL)

    def once(self, output: Path, *words: str | Path) -> Path:
        """One command, unless all that it writes is there."""
        done = output / ".done"
        if not done.exists():
            self.call(*words, "-o", output)
            done.touch()
        return output

    def finetuned(self, models: Path, output: Path, epochs: int, seed: int, *more: str) -> Path:
        """Models trained on; those that an interrupted run left are kept."""
        length = ("--epochs", str(epochs)) if epochs else ("--epochs", "0", "--recalibrate")
        jobs = ("--jobs", str(self.given.jobs), "--seed", str(seed), "--resume")
        return self.once(output, "finetune", models, *length, *more, *jobs)

    def run_arm(self, name: str, seed: int) -> None:
        """One arm with one seed of finetuning."""
        arm, out = ARMS[name], self.given.output
        start = self.given.models
        if arm.metanet:
            start = self.once(out / "transformed", "transform", start, "--metanet", self.given.metanet)
        for budget in (self.given.short, self.given.full):
            folder, left, ready = out / f"seed-{seed}" / name / f"{budget}-epochs", budget, start
            if arm.prepare is not None:
                left = budget - budget // 2
                ready = self.finetuned(start, folder / "prepared", budget // 2, seed, *arm.prepare)
            before = folder if arm.prepare is not None else out / name
            pruned = self.once(before / "pruned", "prune", ready, *arm.ranking)
            self.measured.append(self.finetuned(pruned, folder / "finetuned", left, seed))
            if budget == self.given.full:
                self.measured.append(self.finetuned(pruned, before / "recalibrated", 0, seed))


def main() -> None:
    """Parse, run what is missing, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--output", "-o", type=Path, required=True)
    parser.add_argument("--metanet", type=Path)
    parser.add_argument("--short", type=int, default=2)
    parser.add_argument("--full", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=0)
    given = parser.parse_args()
    protocol = Protocol(given)
    for seed in given.seeds:
        for name in given.arms:
            if given.metanet or not ARMS[name].metanet:
                protocol.run_arm(name, seed)
    protocol.call("eval", *dict.fromkeys(protocol.measured), "--base", given.models, "-o", given.output / "report")
    print((given.output / "report" / "report.md").read_text())


if __name__ == "__main__":
    main()
