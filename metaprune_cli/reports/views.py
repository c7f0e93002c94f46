"""The same images as each model of one evaluation takes them: models may have been made for different preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from metaprune_cli.artifacts import is_artifact, read_document
from metaprune_cli.config import DataSettings, Preprocessing
from metaprune_cli.data import ImageSplit
from metaprune_cli.metrics.latency import Latency
from metaprune_cli.reports.conditions import Conditions
from metaprune_cli.workflows.paths import short_names
from metaprune_cli.workflows.preprocessing import asked, in_words, with_preprocessing


@dataclass(frozen=True, eq=False)
class Views:
    """For each model's file the conditions it is measured under; those of equal preprocessing are one object."""

    by_path: Mapping[Path, Conditions]

    @classmethod
    def of(
        cls, data: DataSettings, paths: Sequence[Path], said: Preprocessing, read: Callable[[DataSettings], Conditions]
    ) -> Views:
        """Read the images, once for each way that models take them.

        Args:
            data: the images.
            paths: the models' files.
            said: what the user says, which goes before what a file says.
            read: reads the images that settings say.
        """
        alike: dict[Preprocessing, list[Path]] = {}
        for path in paths:
            document = read_document(path) if is_artifact(path) else {}
            alike.setdefault(asked(data, document, said), []).append(path)
        found: dict[Path, Conditions] = {}
        for files in alike.values():
            found |= dict.fromkeys(files, read(with_preprocessing(data, files, said)))
        return cls(found)

    @property
    def different(self) -> list[tuple[Conditions, list[Path]]]:
        """The conditions that differ, each with its models."""
        groups: dict[int, tuple[Conditions, list[Path]]] = {}
        for path, conditions in self.by_path.items():
            groups.setdefault(id(conditions), (conditions, []))[1].append(path)
        return list(groups.values())

    def latencies(self, models: Mapping[Path, nn.Module]) -> dict[str, Latency]:
        """Of all models; those whose inputs have one shape take turns."""
        by_shape: dict[tuple[int, ...] | None, tuple[Conditions, dict[str, nn.Module]]] = {}
        for path, model in models.items():
            conditions = self.by_path[path]
            by_shape.setdefault(conditions.shape, (conditions, {}))[1][str(path)] = model
        found: dict[str, Latency] = {}
        for conditions, alike in by_shape.values():
            found |= conditions.latencies(alike)
        return found

    def in_words(self) -> dict[str, str]:
        """The conditions in words, by label; where models take images in different ways, each of them is named."""
        several = self.different
        words = several[0][0].in_words()
        if len(several) == 1:
            return words | {"Preprocessing": written(several[0][0])}
        names = short_names(list(self.by_path))
        parts = (f"{', '.join(names[path] for path in paths)}: {written(each)}" for each, paths in several)
        return words | {"Preprocessing": f"different. {'; '.join(parts)}"}


def written(conditions: Conditions) -> str:
    """What images go through: ``3x32x32, mean 0.485 0.456 0.406, std 0.229 0.224 0.225``, and whose figures it is."""
    said, split = conditions.data.preprocessing, conditions.splits.val
    if not isinstance(split, ImageSplit):
        return in_words(said)
    whole = said.over(Preprocessing(mean=split.preparation.mean, std=split.preparation.std))
    size = "x".join(map(str, split.images.shape))
    whose = "" if said.mean and said.std else f" (the figures of {conditions.data.dataset})"
    return f"{size}, {replace(whole, image_size=None).in_words()}{whose}"
