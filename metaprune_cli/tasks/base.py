"""What a task is: the only thing that training, pruning and evaluation know of what a model is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from metaprune_cli.config import Criterion, DataSettings
from metaprune_cli.data.batch import Batch, Split, size_of
from metaprune_cli.data.splits import Splits
from metaprune_cli.errors import InputError
from metaprune_cli.metrics.calling import call

OwnTask = TypeVar("OwnTask", bound="Task")


@dataclass(frozen=True)
class Metric:
    """A figure that is measured of models.

    Attributes:
        key: its name in files: ``top1``.
        label: its name in tables: ``Top-1``.
        unit: of the figure: ``%``, ``dB``; "" for none.
        higher_is_better: its direction.
        digits: after the decimal point, for people.
        quantity: what it is one figure of: ``Accuracy``; "" for nothing else than itself.
    """

    key: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 2
    quantity: str = ""

    @property
    def title(self) -> str:
        """The heading of a column: ``Top-1 %``."""
        return f"{self.label} {self.unit}".rstrip()

    @property
    def in_title(self) -> str:
        """The same behind another word: ``top-1 %``."""
        return f"{self.name} {self.unit}".rstrip()

    @property
    def name(self) -> str:
        """Its name within a sentence: ``top-1``, but ``PSNR``."""
        return self.label if self.label[1:2].isupper() else self.label[:1].lower() + self.label[1:]

    @property
    def difference_unit(self) -> str:
        """The unit of differences: percentages differ by points."""
        return "points" if self.unit == "%" else self.unit

    @property
    def resolution(self) -> float:
        """The smallest difference worth a picture: a hundred times the last digit that is written."""
        return 100 * 10.0**-self.digits

    def gain(self, before: float, after: float) -> float:
        """How much better ``after`` is; negative where it is worse."""
        return after - before if self.higher_is_better else before - after

    def loss(self, before: float, after: float) -> float:
        """How much worse ``after`` is; negative where it is better."""
        return self.gain(after, before)

    def write(self, value: float) -> str:
        """The figure without its unit."""
        return f"{value:.{self.digits}f}"

    def written(self, value: float) -> str:
        """The figure with its unit."""
        return f"{self.write(value)} {self.unit}".rstrip()


@runtime_checkable
class Meter(Protocol):
    """The metrics of many batches. It adds up, so that batches, and what several processes saw, can be merged."""

    def update(self, output: Any, targets: Any) -> None:
        """Take a batch into account: what the model returned, and what it should have."""

    def sums(self) -> Tensor:
        """All that was seen so far, float64 (n,) on the CPU."""

    def merge(self, sums: Tensor) -> None:
        """Take what another meter has seen into account."""

    def values(self) -> Mapping[str, float]:
        """The figures, by the metrics' keys."""


class SumMeter:
    """A meter of sums.

    Args:
        add: the sums of one batch (n,), of what the model returned and of the targets.
        read: the figures, by key, from the sums over all batches: numbers, or tensors of one.
        length: n.
    """

    def __init__(
        self, add: Callable[[Any, Any], Tensor], read: Callable[[Tensor], Mapping[str, Any]], length: int
    ) -> None:
        self._add, self._read = add, read
        self._total = torch.zeros(length, dtype=torch.float64)

    def update(self, output: Any, targets: Any) -> None:
        """Take a batch into account."""
        self._total += self._add(output, targets).double().cpu()

    def sums(self) -> Tensor:
        """All that was seen so far, float64 (n,) on the CPU."""
        return self._total.clone()

    def merge(self, sums: Tensor) -> None:
        """Take what another meter has seen into account."""
        self._total += sums

    def values(self) -> Mapping[str, float]:
        """The figures, by key."""
        return {key: float(value) for key, value in self._read(self._total).items()}


@dataclass(frozen=True, eq=False)
class Exhibit:
    """A sample of which a report shows what models make of it."""

    name: str
    batch: Batch


@runtime_checkable
class Task(Protocol):
    """What a model is for.

    Classes of users' own may derive from it: then ``loss``, ``meter``, ``splits``, ``test`` and the two attributes
    without a value are all they have to write.

    Attributes:
        name: for messages.
        metrics: what is measured; the first is the headline, which rounds, rankings and reports go by.
        mixable: whether two samples can be mixed into one whose loss is the mixture of theirs (mixup, cutmix).
        criterion: by which units of its models are best ranked, each family by itself, where there are images and no
            method has scored them; None: as of any model.
        learns_from_whole: whether ``compress`` lets what is left learn from the whole model's outputs too, unless told
            otherwise.
    """

    name: str
    metrics: tuple[Metric, ...]
    mixable: bool = False
    criterion: Criterion | None = None
    learns_from_whole: bool = False

    def configured(self: OwnTask, data: DataSettings) -> OwnTask:  # noqa: ARG002 - for tasks with settings
        """The same task as the settings want it."""
        return self

    def splits(self, data: DataSettings) -> Splits:
        """What training may see."""

    def test(self, data: DataSettings) -> Mapping[str, Split]:
        """The test sets, by name, which stands behind the metrics' of all but the first."""

    def beside_test(self, data: DataSettings) -> Splits:
        """What evaluation may see beside the test sets; without training samples where it can do without."""
        return self.splits(data)

    def run(self, model: nn.Module, inputs: Any) -> Any:
        """What a model makes of inputs when it is measured; they may be more than it takes at a time."""
        return call(model, inputs)

    def loss(self, output: Any, targets: Any) -> Tensor:
        """What training minimises, the mean over a batch, of what the model returned and of what it should have."""

    def meter(self) -> Meter:
        """A new meter of all metrics."""

    def quick_meter(self) -> Meter:
        """A new meter for use while a model is trained, which need measure nothing but the headline."""
        return self.meter()

    def total_loss(self, output: Any, targets: Any) -> Tensor:
        """The loss summed over a batch."""
        return self.loss(output, targets) * size_of(targets)

    def match(self, output: Any, taught: Any, temperature: float = 1.0) -> Tensor:  # noqa: ARG002 - of scores alone
        """How far outputs are from a teacher's, the mean over a batch; here: the mean absolute difference.

        Args:
            output: what the model returned.
            taught: what the teacher did.
            temperature: of outputs that are scores.
        """
        if not (isinstance(output, Tensor) and isinstance(taught, Tensor)):
            raise InputError(
                f"The task {self.name} does not say how far outputs are from a teacher's.",
                expected="a method match(output, taught, temperature)",
                got=f"outputs of type {type(output).__name__}",
                next_step="write it, or train without a teacher",
            )
        return (output - taught).abs().mean()

    def smoothed(self: OwnTask, amount: float) -> OwnTask:
        """The same task with so much of every label spread over all classes.

        Raises:
            InputError: it has no classes.
        """
        raise InputError(
            f"The task {self.name} has no labels to smooth.",
            expected="0",
            got=amount,
            where="label_smoothing",
            next_step="leave it out",
        )

    def check(self, output: Any, splits: Splits) -> None:
        """Make sure that a model whose output for one input of the data set this is can be used for it.

        Raises:
            InputError: it cannot; says why not.
        """

    def advice(self, expected: tuple[int, ...], given: tuple[int, ...]) -> str:  # noqa: ARG002 - for other tasks
        """What to do about a data set whose inputs do not have the shape that a model takes; neither has the batch."""
        return "choose the model's data set with --dataset, or say --image-size or --input-shape"

    def in_words(self) -> Mapping[str, str]:
        """The conventions of its figures, in words, by label; for reports."""
        return {}

    def guessing(self, splits: Splits) -> float | None:  # noqa: ARG002 - where the samples are of classes
        """The first metric of a model that only guesses; None where the data do not say."""
        return None

    def counted(self, model: nn.Module, splits: Splits) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002 - of images
        """Shapes of inputs, by name, for which a model's MACs are counted beside those of the example."""
        return {}

    def exhibits(self, tests: Mapping[str, Split]) -> Sequence[Exhibit]:  # noqa: ARG002 - where there are pictures
        """Samples of which a report shows what models make of them."""
        return ()

    def picture(self, output: Any) -> Tensor:
        """Of an exhibit, uint8 (c, h, w): what a model returned."""
        raise NotImplementedError

    def given(self, exhibit: Exhibit) -> Any:
        """Of an exhibit, what a model would return that does nothing."""
        raise NotImplementedError

    @property
    def remembered(self) -> Mapping[str, Any]:
        """What the files of models say beside the task, of images to restore."""
        return {}

    def arguments(self, splits: Splits) -> Mapping[str, Any]:
        """What the data say about the models that are made for them; known architectures take what they understand."""
        return image_arguments(splits)


def image_arguments(splits: Splits) -> dict[str, Any]:
    """The colours and the size of images; nothing for other inputs."""
    if splits.input_shape is None or len(splits.input_shape) != 4:
        return {}
    channels, size, _ = splits.input_shape[1:]
    return {"in_channels": channels, "image_size": size}
