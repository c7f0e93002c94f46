"""Many hostile and damaged files, each through one command in a process of its own; what ends otherwise than it may.

``python tests/hostile/storm.py --documents 10000 --damaged 10000 --seed 0`` prints how the calls ended, kind by kind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from attack import Call, Ending, attack_all
from documents import hostile_documents
from forge import damaged, forge
from programs import good_tensors, hostile_programs
from sound import COMMANDS, Sound, make

FILE = "hostile.safetensors"
TOGETHER = 100  # calls in one process
CHECKPOINT = "out/x.checkpoint.safetensors"
STAGES = ("bench", "decode", "encode", "eval", "finetune", "inspect", "meta_train", "prune", "sparsify", "transform")
PRELOADED = (*(f"metaprune_cli.stages.{name}" for name in STAGES), "matplotlib.figure", "sklearn.datasets", "joblib")


@dataclass(frozen=True)
class Case:
    """One file, what was done to it, and the command it is given to."""

    kind: str
    what: str
    command: str
    data: bytes


@dataclass
class Tally:
    """How calls ended: codes by kind of file and of change, the slowest, and what must not be."""

    codes: Counter[tuple[str, str, int | None]] = field(default_factory=Counter)
    slowest: float = 0.0
    wrong: list[tuple[Case, Ending]] = field(default_factory=list)

    def add(self, group: str, case: Case, ending: Ending) -> None:
        """Count one call. A damaged file must be refused; a hostile one may be right after all."""
        self.codes[group, case.kind, ending.code] += 1
        self.slowest = max(self.slowest, ending.seconds)
        if not ending.sound or (group == "damaged" and ending.code == 0):
            self.wrong.append((case, ending))


def hostile_cases(sound: list[Sound], seed: int) -> Iterator[Case]:
    """Sound files with other documents, kinds and commands in turn."""
    rng = random.Random(f"hostile {seed}")
    streams = [(good, hostile_documents(good.kind, good.document, seed)) for good in sound]
    programs, tensors = hostile_programs(seed), good_tensors()
    program = next(good for good in sound if "program" in good.document)
    folder = Path(tempfile.mkdtemp(prefix="forged"))
    try:
        for number in itertools.count():
            if number % 3 == 0:  # a third of all: they are what is run
                good, (what, document) = program, next(programs)
                given = {**good.document, "program": document, "aliases": {}}
                forge(folder / FILE, tensors, given)
            else:
                good, documents = streams[number % len(streams)]
                what, document = next(documents)
                forge(folder / FILE, good.tensors, {"kind": good.kind, "format_version": 1, **document})
            yield Case(good.kind, f"{good.name}: {what}", rng.choice(COMMANDS[good.kind]), (folder / FILE).read_bytes())
    finally:
        shutil.rmtree(folder)


def damaged_cases(sound: list[Sound], seed: int) -> Iterator[Case]:
    """Sound files with damage of every sort."""
    rng = random.Random(f"damaged {seed}")
    for number in itertools.count():
        good = sound[number % len(sound)]
        what, data = damaged(good.data, rng)
        yield Case(good.kind, f"{good.name}: {what}", rng.choice(COMMANDS[good.kind]), data)


def call_of(case: Case) -> Call:
    """The file where the command looks for it, and the command."""
    name = CHECKPOINT if case.kind == "checkpoint" else FILE
    return Call({name: case.data}, tuple(name if word == "FILE" else word for word in case.command.split()))


def storm(folder: Path, sound: list[Sound], documents: int, damages: int, seed: int, tell: Any = None) -> Tally:
    """Run so many cases of either sort."""
    tally = Tally()
    for group, cases, count in (
        ("hostile", hostile_cases(sound, seed), documents),
        ("damaged", damaged_cases(sound, seed), damages),
    ):
        for begun in range(0, count, TOGETHER):
            some = list(itertools.islice(cases, min(TOGETHER, count - begun)))
            before = len(tally.wrong)
            for case, ending in zip(some, attack_all([call_of(case) for case in some], folder), strict=True):
                tally.add(group, case, ending)
            if tell is not None:
                tell(group, begun + len(some), tally, tally.wrong[before:])
    return tally


def main() -> None:
    """Run the storm and print its tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("documents", 1000), ("damaged", 1000), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path, help="a folder for the files that ended wrongly")
    options = parser.parse_args()
    for module in PRELOADED:
        import_module(module)
    folder = Path(tempfile.mkdtemp(prefix="storm"))

    def tell(group: str, number: int, tally: Tally, wrong: list[tuple[Case, Ending]]) -> None:
        for case, ending in wrong:
            sys.stdout.write(
                f"{ending.code} {ending.seconds:.1f} s  {case.command}  {case.what}\n{ending.text[-1500:]}\n"
            )
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{len(tally.wrong)}.safetensors").write_bytes(case.data)
        sys.stdout.write(f"{group} {number}: {len(tally.wrong)} wrong, slowest {tally.slowest:.1f} s\n")
        sys.stdout.flush()

    tally = storm(folder, make(folder), options.documents, options.damaged, options.seed, tell)
    codes = [{"group": g, "kind": k, "code": c, "count": n} for (g, k, c), n in sorted(tally.codes.items(), key=str)]
    sys.stdout.write(
        json.dumps({"wrong": len(tally.wrong), "slowest_s": tally.slowest, "codes": codes}, indent=1) + "\n"
    )
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
