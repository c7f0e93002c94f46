"""Which files a stage reads and which it writes: decided, and checked, before any work is done."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from metaprune_cli.artifacts import is_artifact, read_kind
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.places import FOLDER, INDEX_SUFFIX, is_pretrained, printable, unreadable, unwritable

SUFFIX = ".safetensors"
_STATE_FILES = (".pt", ".pth", ".ckpt", ".bin", SUFFIX)
_LISTED = 10
CHECKPOINT = ".checkpoint.safetensors"
HEAD_BYTES = 300  # of a text, in which its mark stands
NAME_BYTES = 200  # of a file's name in that of its temporary sibling; file systems take 255
ABANDONED_S = 24 * 3600.0  # nobody writes one file that long: whoever began it was killed


@dataclass(frozen=True)
class Source:
    """One input file, and where it belongs below an output folder."""

    path: Path
    relative: Path

    def named(self, tag: str) -> Path:
        """The relative path of an output made from this input: ``a/m.safetensors`` -> ``a/m.<tag>.safetensors``.

        A tag that begins with a dot is the whole ending: ``a/m.safetensors`` -> ``a/m.onnx``.
        """
        return self.relative.with_name(stem(self.path) + (tag if tag.startswith(".") else f".{tag}{SUFFIX}"))


@dataclass(frozen=True)
class Replaceable:
    """Which existing files an output may replace: in words, and how to tell."""

    words: str
    holds: Callable[[Path], bool]


def artifacts_of(kind: str) -> Replaceable:
    """What most outputs may replace: artifacts of their own kind."""
    return Replaceable(f"an artifact of kind {kind}", lambda file: _replaceable(file, kind))


@dataclass(frozen=True)
class Sources:
    """All input files of one call; ``many`` when they came as a folder or as several paths."""

    files: tuple[Source, ...]
    many: bool
    from_folder: bool


def stem(path: Path) -> str:
    """A file's name without its suffix and without the ``.graph`` of a neuron graph; a folder's whole name."""
    if path.is_dir():
        return path.resolve().name
    path = path.with_name(path.name.removesuffix(INDEX_SUFFIX) or path.name)
    return path.name.removesuffix(path.suffix).removesuffix(".graph")


def short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each model is called: the stem of its file, with the folder before it where two would be called alike."""
    stems = [stem(path) for path in paths]
    return {path: name if stems.count(name) == 1 else str(path) for path, name in zip(paths, stems, strict=True)}


def checkpoint_of(output: Path) -> Path:
    """Where the state of an interrupted run waits: beside its output."""
    return output.with_name(output.name.removesuffix(SUFFIX) + CHECKPOINT)


def _instead(folder: Path) -> str:
    """What is in a folder without artifacts, for the message about it."""
    if (folder / ".metadata").is_file():
        return " (of torch.distributed.checkpoint: its format_utils has dcp_to_torch, which makes one file of it)"
    files = sorted(path.name for path in folder.iterdir() if path.suffix in _STATE_FILES)
    return f" (models to give by name: {', '.join(files[:_LISTED])})" if files else ""


def find_sources(inputs: Sequence[Path], kinds: Sequence[str]) -> Sources:
    """The input files: files as they are, folders as every artifact in them (sub-folders included) of one of ``kinds``.

    A folder that ``save_pretrained`` wrote is one model, and so is one with the index of a model in several files.

    With one folder, paths below the output folder are relative to it; with several inputs a folder keeps its own name.

    Raises:
        InputError: listing every path that does not exist, or holds no such artifact.
    """
    found: list[Source] = []
    problems: list[str] = []
    for path in inputs:
        if is_pretrained(path) and "model" in kinds:
            found.append(Source(path, Path(path.resolve().name)))
        elif path.is_dir():
            below = Path() if len(inputs) == 1 else Path(path.resolve().name)
            artifacts = [file for file in sorted(path.rglob(f"*{SUFFIX}")) if _fits(file, kinds)]
            found.extend(Source(file, below / file.relative_to(path)) for file in artifacts)
            indices = sorted(path.glob(f"*{INDEX_SUFFIX}")) if "model" in kinds and not artifacts else []
            if len(indices) == 1:
                found.append(Source(indices[0], Path(path.resolve().name)))
            elif not artifacts:
                problems.append(f"{path}: no artifact of kind {' or '.join(kinds)} in this folder{_instead(path)}")
        elif problem := unreadable(path):
            problems.append(f"{printable(path)}: {problem}")
        else:
            found.append(Source(path, Path(path.name)))
    if problems:
        raise InputError(
            "Some inputs are invalid." if len(problems) > 1 else "An input is invalid.",
            expected=f"files, or folders of artifacts of kind {' or '.join(kinds)}",
            got="\n".join(problems),
            next_step="check the paths",
        )
    folder = any(path.is_dir() and not is_pretrained(path) for path in inputs)
    return Sources(tuple(found), many=folder or len(found) > 1, from_folder=folder)


def plan_targets(
    sources: Sources, output: Path | None, tags: Sequence[str], kind: str | Replaceable
) -> list[list[Path]]:
    """For each input, one output path for each tag; checked against each other and against what is there already.

    Raises:
        InputError: ``output`` is a file where a folder is needed, is missing for a folder of inputs, two outputs would
            be one file, an output is an input, or an existing file is not an artifact of ``kind``.
    """
    suffixes = {Path(f"name{tag}").suffix if tag.startswith(".") else SUFFIX for tag in tags}
    if output is None and sources.from_folder:
        raise InputError(
            "A folder as input needs a folder for the output.",
            where="-o",
            next_step="say where the results go: -o FOLDER",
        )
    if output is None:
        targets = [[source.path.parent / source.named(tag).name for tag in tags] for source in sources.files]
    elif sources.many or len(tags) > 1 or _means_folder(output, suffixes):
        _check_folder(output, suffixes)
        targets = [[output / source.named(tag) for tag in tags] for source in sources.files]
    else:
        targets = [[output]]
    check_targets([target for row in targets for target in row], kind, inputs=[source.path for source in sources.files])
    return targets


def check_targets(targets: Sequence[Path], kind: str | Replaceable, inputs: Iterable[Path] = ()) -> None:
    """Refuse, before any work is done, outputs that could not be written at its end.

    Raises:
        InputError: listing all of them.
    """
    ours = artifacts_of(kind) if isinstance(kind, str) else kind
    taken = {os.path.realpath(path) for path in inputs}
    problems: list[str] = []
    for target in targets:
        if (reason := unwritable(target)) and not (reason == FOLDER and ours.holds(target)):
            problems.append(f"{printable(target)}: {reason}")
            continue
        place = os.path.realpath(target)
        if place in taken:
            problems.append(f"{target}: is an input, or another input's output too")
        elif target.exists() and not ours.holds(target):
            problems.append(f"{target}: exists and is not {ours.words}")
        taken.add(place)
    if problems:
        raise InputError(
            "Nothing was written: some outputs could not be, or would destroy something.",
            expected=f"new files in places that can be written, or {ours.words} to replace",
            got="\n".join(problems),
            next_step="choose another place with -o",
        )


@dataclass(frozen=True)
class Rendering:
    """A kind of text that is written for people: what it is called, its suffix, and the mark in each of its files."""

    noun: str
    suffix: str
    mark: str

    def check(self, target: Path, option: str) -> None:
        """Refuse, before any work is done, a place where none can go, or where it would destroy something.

        Raises:
            InputError: another suffix, a file that is not one of ours, a folder, or a place that cannot be written.
        """
        problem = self._problem(target)
        if problem:
            raise InputError(
                f"The {self.noun} cannot be written there.",
                expected=f"a new file in {self.suffix}, or a {self.noun} of ours to replace",
                got=f"{target}: {problem}",
                where=option,
                next_step=f"choose another place with {option}",
            )

    def _problem(self, target: Path) -> str | None:
        if target.suffix.lower() != self.suffix:
            return f"is not named as an {self.suffix[1:].upper()} file"
        problem = unwritable(target)
        if problem is None and target.exists() and not self._is_ours(target):
            return f"exists and is not a {self.noun} of ours"
        return problem

    def _is_ours(self, file: Path) -> bool:
        with file.open("rb") as text:
            return self.mark.encode() in text.read(HEAD_BYTES)

    def write(self, target: Path, text: str) -> None:
        """Write a file, and the folders it is in."""
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, lambda part: part.write_text(text, encoding="utf-8"))


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a sibling and rename it, so that no half-written file is ever under this name.

    The sibling belongs to this call alone: of two that write one file at a time, here or on another machine, the last
    one's stays. Siblings of processes that were killed are removed a day later.

    Raises:
        InputError: the file cannot be written; what was there before is as it was.
    """
    part = path.with_name(f"{_sibling(path)}{uuid.uuid4().hex}.part")
    try:
        _remove_abandoned(path)
        write(part)
        part.replace(path)
    except OSError as error:
        raise InputError(
            "The file could not be written; what was there before is as it was.",
            got=error.strerror or str(error),
            where=path,
            next_step="check the folder's permissions and the free space, or choose another place",
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def replace_folder(path: Path, write: Callable[[Path], object]) -> None:
    """The same for a folder of files, which ``write`` makes; the folder that was there before is removed at the end.

    Raises:
        InputError: it cannot be written; what was there before is as it was.
    """

    def into_place(part: Path) -> None:
        try:
            write(part)
            if path.is_dir():
                shutil.rmtree(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    replace_file(path, into_place)


def _sibling(path: Path) -> str:
    """How the names of temporary siblings begin; they are hidden, and no artifact's."""
    return f".{os.fsdecode(os.fsencode(path.name)[:NAME_BYTES])}."


def _remove_abandoned(path: Path) -> None:
    ours = re.compile(re.escape(_sibling(path)) + r"[0-9a-f]{32}\.part")
    for entry in os.scandir(path.parent):
        if ours.fullmatch(entry.name):
            with suppress(OSError):  # another process has removed it just now
                if time.time() - entry.stat().st_mtime > ABANDONED_S:
                    Path(entry).unlink()


def _means_folder(output: Path, suffixes: Collection[str]) -> bool:
    return output.is_dir() or (not output.exists() and output.suffix not in suffixes)


def _check_folder(output: Path, suffixes: Collection[str]) -> None:
    if output.is_file() or (output.suffix in suffixes and not output.is_dir()):
        raise InputError(
            "Several results need a folder.", expected="a folder", got=str(output), where="-o", next_step="-o FOLDER"
        )


def _replaceable(file: Path, kind: str) -> bool:
    try:
        return _fits(file, (kind,))
    except CorruptFileError:
        return False


def _fits(file: Path, kinds: Sequence[str]) -> bool:
    return file.is_file() and is_artifact(file) and read_kind(file) in kinds
