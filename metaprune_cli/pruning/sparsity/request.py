"""What is asked for when weights are to be zeroed."""

from __future__ import annotations

from dataclasses import dataclass

from metaprune_cli.config import ZeroKind, ZeroScope


@dataclass(frozen=True)
class Zeroing:
    """Which weights are to be zeroed.

    Attributes:
        kind: single weights (``unstructured``), all but N of every M (``n:m``), or whole tiles (``block``).
        sparsity: the fraction that goes, for ``unstructured`` and ``block``.
        pattern: N and M, for ``n:m``.
        tile: outputs and inputs of a tile, for ``block``.
        scope: ``global`` has one threshold for all layers; ``family`` takes the same fraction of each layer.
        classifier: whether layers whose outputs are the model's are zeroed too.
        first: whether layers whose inputs are the model's are.
        kernel_only: for 2:4, leave alone what PyTorch's 2:4 kernels do not take.
    """

    kind: ZeroKind
    sparsity: float = 0.8
    pattern: tuple[int, int] = (2, 4)
    tile: tuple[int, int] = (4, 1)
    scope: ZeroScope = "global"
    classifier: bool = False
    first: bool = True
    kernel_only: bool = False

    @property
    def granule(self) -> tuple[int, int]:
        """Outputs and inputs of what goes together: a tile, or one weight."""
        return self.tile if self.kind == "block" else (1, 1)

    @property
    def shape(self) -> str | None:
        """The pattern (``2:4``) or the tile (``4x1``) in a word; None for single weights."""
        words = {"n:m": "{}:{}".format(*self.pattern), "block": "{}x{}".format(*self.tile)}
        return words.get(self.kind)

    @property
    def fraction(self) -> float:
        """The fraction of weights that is to go."""
        kept, group = self.pattern
        return 1 - kept / group if self.kind == "n:m" else self.sparsity
