"""What goes, how much of it, and in how many rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_args

from metaprune_cli.config.choices import (
    WITH_DATA,
    AskedScope,
    BelowOne,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Normalising,
    Ranking,
    Reduction,
    Repair,
    Rounds,
    Route,
    Seed,
    Speedup,
    ZeroKind,
    ZeroScope,
)
from metaprune_cli.config.flags import MEASURING, RANKING, REPAIR, ROUNDS, SEARCH, SEED, WHAT_GOES, WHICH_LAYERS, Flag
from metaprune_cli.config_loader import Range, Reference, n_of_m, rows_by_columns
from metaprune_cli.errors import InputError

SCORED = (
    f"How units are scored: {', '.join(get_args(Ranking))}, or package.module:function. "
    "auto: by a metanetwork's scores if the model has them, otherwise group-l2."
)


@dataclass(frozen=True)
class PruningRule:
    """What may happen to some layers: one entry of ``prune.rules``.

    ``match`` is a glob over names of families, layers and parameters, or ``re:`` and a regular expression over them, or
    ``type:`` and the name of a module's class, or ``kind:heads``. What is None is left as other rules have it.
    """

    match: str
    ignore: bool = False  # nothing goes
    max_ratio: Annotated[float, Range(at_least=0, at_most=1)] | None = None  # the largest fraction that may go
    min_ratio: BelowOne | None = None  # the smallest that must
    min_units: Count | None = None  # so many stay
    round_to: Count | None = None  # where some go, what stays is a multiple of this
    tie: bool = False  # the families lose their units together, the i-th of each


@dataclass(frozen=True)
class PruneSettings:
    """Section ``prune``: how much to remove, ranked how, and what is done about it.

    The criterion ``auto`` is ``metanet`` for models whose units a metanetwork has scored, else ``group-l2``;
    ``package.module:function`` is a user's own. The normaliser ``auto`` is what that metanetwork was trained with, else
    ``max``, ``mean`` where units are scored anew, and ``rank`` where a search starts from it.
    """

    speedup: Annotated[
        tuple[Speedup, ...],
        Flag("MACs before / MACs after; may be repeated.", WHAT_GOES, "X", ("--speedup", "-s"), instead_of=("target",)),
    ] = (2.0,)
    target: Annotated[
        tuple[str, ...],
        Flag(
            "Another kind of target: params=2x, macs=50%, size=10MB, memory=4MiB, latency=3ms; or "
            "drop=0.5, the most that accuracy (or the task's first metric) may drop on validation "
            "images. May be repeated.",
            WHAT_GOES,
            "QUANTITY=AMOUNT",
        ),
    ] = ()
    criterion: Annotated[Ranking | Annotated[str, Reference()], Flag(SCORED, RANKING, "NAME")] = "auto"
    reduction: Annotated[Reduction, Flag("How the scores of a unit's slices are combined into one.", RANKING)] = "mean"
    normaliser: Annotated[
        Normalising,
        Flag("What the scores of a layer are divided by; rank: use a unit's position in its layer instead.", RANKING),
    ] = "auto"
    rescore: Annotated[
        Count,
        Flag("Remove in N steps and score what is left again after each; nothing is trained in between.", RANKING, "N"),
    ] = 1
    scope: Annotated[
        AskedScope,
        Flag(
            "Rank channels across all layers (global), remove the same share of each layer "
            "(family), or as much of each as it can lose, measured on training images (sensitivity); "
            "auto: global, unless the task prefers family.",
            RANKING,
        ),
    ] = "auto"
    max_ratio: Annotated[
        Fraction, Flag("Largest share of a layer's channels (or heads) that may be removed.", WHAT_GOES, "R")
    ] = 0.8
    round_to: Annotated[Count, Flag("Keep a multiple of N channels in every pruned layer.", WHAT_GOES, "N")] = 1
    keep_heads: Annotated[bool, Flag("Do not remove attention heads.", WHAT_GOES)] = False
    route: Annotated[
        Route,
        Flag(
            "class: keep the model's class, and remove only what it can adapt to; program: "
            "rewrite the model as a program of its operators; auto: keep the class if that costs "
            "little, or if it has `generate` or `save_pretrained`, which programs lack.",
            WHAT_GOES,
        ),
    ] = "auto"
    rules: tuple[PruningRule, ...] = ()
    batches: Annotated[Count, Flag("Number of training batches for criteria that need data.", RANKING, "N")] = 4
    repair: Annotated[
        Repair,
        Flag(
            "Restore accuracy without training: fit what is left to what the original model computed on images.", REPAIR
        ),
    ] = "none"
    repair_images: Annotated[Count, Flag("Number of training images used for the repair.", REPAIR, "N")] = 512
    search: Annotated[
        Natural, Flag("Try N other ways to divide the removal among layers, evaluated on images.", SEARCH, "N")
    ] = 0
    search_images: Count = 1024
    # one search for all models of a structure: what it finds is less a matter of chance
    together: Annotated[bool, Flag("Run one search for all models of the same structure.", SEARCH)] = False
    seed: Annotated[Seed, SEED] = 0

    @property
    def needs_images(self) -> bool:
        """Whether units cannot be chosen, or what is left not repaired, without images."""
        drop = any(target.partition("=")[0].strip() == "drop" for target in self.target)
        seen = self.criterion in WITH_DATA or self.scope == "sensitivity"
        return drop or seen or self.repair != "none" or self.search > 0

    def __post_init__(self) -> None:
        if self.search and self.scope in ("family", "sensitivity"):
            raise InputError(
                f"With scope {self.scope} it is known how much of each layer goes, so there is nothing to search for.",
                expected="scope global, or no search",
                got=f"{self.search} trials in scope {self.scope}",
                where="prune.search",
            )
        if self.rescore > 1 and self.scope == "sensitivity":
            raise InputError(
                "--rescore cannot be combined with scope sensitivity, which measures each layer once.",
                where="prune.rescore",
                next_step="leave --rescore out, or choose --scope global",
            )
        if self.rescore > 1 and any(target.partition("=")[0].strip() == "drop" for target in self.target):
            raise InputError(
                "--rescore cannot be combined with a target of drop, because its steps are not known in advance.",
                where="prune.rescore",
                next_step="leave --rescore out, or give a target such as --speedup X",
            )
        if self.together and not self.search:
            raise InputError(
                "--together only has an effect with a search.",
                where="prune.together",
                next_step="--search N, or leave it out",
            )


@dataclass(frozen=True)
class SparsifySettings:
    """Section ``sparsify``: which weights are zeroed; all shapes stay."""

    kind: Annotated[
        ZeroKind, Flag("What to set to zero: single weights, all but N of every M weights, or blocks.", WHAT_GOES)
    ] = "unstructured"
    sparsity: Annotated[
        tuple[Fraction, ...],
        Flag("Fraction of weights to set to zero, for all kinds except n:m; may be repeated.", WHAT_GOES, "X"),
    ] = (0.8,)
    # in YAML in quotes, where 2:4 is the number 124
    pattern: Annotated[str, Flag("Keep N of every M weights; for kind n:m.", WHAT_GOES, "N:M")] = "2:4"
    block: Annotated[str, Flag("Block size, outputs x inputs; for kind block.", WHAT_GOES, "RxC")] = "4x1"
    scope: Annotated[
        ZeroScope, Flag("One threshold for all layers, or the same fraction of each layer; not for n:m.", WHAT_GOES)
    ] = "global"
    # of those layers whose outputs, or inputs, are the model's
    classifier: Annotated[
        bool,
        Flag(
            "Also set weights of the last layers to zero.",
            WHICH_LAYERS,
            names=("--include-classifier/--exclude-classifier",),
        ),
    ] = False
    first: Annotated[
        bool,
        Flag("Also set weights of the first layers to zero.", WHICH_LAYERS, names=("--include-first/--exclude-first",)),
    ] = True
    kernel_only: Annotated[
        bool,
        Flag(
            "With 2:4: only layers that PyTorch's 2:4 kernels support.",
            WHICH_LAYERS,
            names=("--kernel-only/--no-kernel-only",),
        ),
    ] = False

    def __post_init__(self) -> None:
        pattern = n_of_m(self.pattern, where="sparsify.pattern")
        rows_by_columns(self.block, where="sparsify.block")
        if self.kernel_only and pattern != (2, 4):
            raise InputError(
                "PyTorch only has kernels for 2:4.", expected="2:4", got=self.pattern, where="sparsify.pattern"
            )


@dataclass(frozen=True)
class IterateSettings:
    """Section ``iterate``: pruning in rounds, with training in between; ``prune`` and ``finetune`` say how.

    Every round trains for ``epochs``; after the last, ``finetune.epochs`` follow. With ``max_drop`` the rounds end
    before the headline metric on validation images is so much worse than the whole model's (points of accuracy).
    """

    rounds: Annotated[Count, Flag("Number of rounds.", ROUNDS, "N")] = 4
    schedule: Annotated[
        Rounds,
        Flag(
            "Remove the same share in every round (geometric), the same amount (linear), or most "
            "of it early (cubic, AGP).",
            ROUNDS,
        ),
    ] = "geometric"
    epochs: Annotated[Count, Flag("Training epochs after every round.", ROUNDS, "N")] = 2
    max_drop: Annotated[
        NonNegative | None,
        Flag(
            "Stop before accuracy (or the task's first metric) on validation images drops by more than this.",
            ROUNDS,
            "POINTS",
        ),
    ] = None


@dataclass(frozen=True)
class SensitivitySettings:
    """Section ``sensitivity``: one family at a time loses each of ``ratios``; ``images`` validation images are asked.

    ``max_drop`` is how much of the headline metric (points of accuracy) a family may cost by itself in the rules.
    """

    ratios: Annotated[
        tuple[Fraction, ...], Flag("Share of a layer to remove; may be repeated.", WHAT_GOES, "R", ("--ratio",))
    ] = (0.25, 0.5, 0.75, 0.9)
    images: Annotated[Count, Flag("Maximum number of validation images to use.", MEASURING, "N")] = 2048
    max_drop: Annotated[
        NonNegative, Flag("For the rules: how many points pruning one layer alone may cost.", WHAT_GOES, "POINTS")
    ] = 1.0
