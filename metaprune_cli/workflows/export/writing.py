"""One model into one file: written beside its place, read again, compared, and only then put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from metaprune_cli.config import ExportFormat, ExportSettings
from metaprune_cli.errors import InputError, MetapruneError
from metaprune_cli.graph.program.module import Program
from metaprune_cli.workflows.export.capture import Subject
from metaprune_cli.workflows.export.check import Compared, compare
from metaprune_cli.workflows.export.formats import FORMATS, About
from metaprune_cli.workflows.paths import Replaceable, replace_file, replace_folder

NOT_CAPTURED = ("safetensors", "huggingface")
"""The formats that keep the author's class, and so take any batch."""


@dataclass(frozen=True)
class Exported:
    """One file that was written.

    Attributes:
        input: the model's file, or in Python its class.
        output: the file, or the folder.
        format: its format.
        bytes: its size.
        batch: the one batch size it takes; None: any.
        route: ``class`` or ``program`` (see ARCHITECTURE.md).
        error: the largest relative error found.
        batches: the batch sizes it was checked with.
        inputs: random inputs of each batch size.
        telling: whether the model's outputs depend on its inputs; if not, the check says nothing.
    """

    input: str
    output: str
    format: ExportFormat
    bytes: int
    batch: int | None
    route: str
    error: float
    batches: tuple[int, ...]
    inputs: int
    telling: bool


def exports_in(formats: Sequence[ExportFormat]) -> Replaceable:
    """The files that an export may replace: those of the same format."""

    def is_ours(file: Path) -> bool:
        fitting = [name for name in formats if len(formats) == 1 or file.name.endswith(FORMATS[name].ending)]
        of_kind = (FORMATS[name] for name in fitting if FORMATS[name].is_folder == file.is_dir())
        return any(form.is_ours(file) for form in of_kind)

    return Replaceable("an export of ours in the same format", is_ours)


def write_file(
    subject: Subject, name: ExportFormat, target: Path, settings: ExportSettings, *, source: str, about: About
) -> Exported:
    """Write the model in one format.

    Args:
        subject: the model.
        name: the format.
        target: the file.
        settings: how closely it has to agree with the model.
        source: where the model came from.
        about: what the file says of itself.

    Raises:
        InputError: the model cannot be written in this format.
        NumericsError: the file does not compute what the model computes; it is not kept.
    """
    form = FORMATS[name]
    batches = (settings.static_batch,) if settings.static_batch else (1, settings.batch)
    found: list[Compared] = []

    def write(part: Path) -> None:
        try:
            form.write(subject, about, part)
            run = form.read(subject, part)
        except (MetapruneError, OSError):
            raise
        except Exception as error:
            raise _failed(name, error) from error
        found.append(compare(subject, run, batches, settings.inputs, settings.tolerance))

    target.parent.mkdir(parents=True, exist_ok=True)
    (replace_folder if form.is_folder else replace_file)(target, write)
    return Exported(
        input=source,
        output=str(target),
        format=name,
        bytes=sum(file.stat().st_size for file in ([*target.iterdir()] if form.is_folder else [target])),
        batch=None if name in NOT_CAPTURED else settings.static_batch,
        route="program" if isinstance(subject.model, Program) else "class",
        **asdict(found[0]),
    )


def _failed(name: ExportFormat, error: Exception) -> InputError:
    """Whatever PyTorch's exporters raise where they do not know an operator."""
    return InputError(
        f"PyTorch cannot write this model as {name}, or not read it again.",
        got=f"{type(error).__name__}: {error}"[:400],
        where="--format",
        next_step="try another --format; --debug shows the traceback",
    )
