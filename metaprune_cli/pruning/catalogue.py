"""The criteria in words: a row for each choice of ``config.Criterion``, and a test that none is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metaprune_cli.config import Criterion


@dataclass(frozen=True)
class Described:
    """What a criterion takes for a unit's importance, what it needs beside the model, and where it is from."""

    about: str
    needs: str = "nothing"
    source: str | None = None


CRITERIA: Mapping[Criterion, Described] = MappingProxyType(
    {
        "group-l1": Described(
            "mean of the sums of |w| over everything a unit owns, in and out", source="arXiv 2301.12900"
        ),
        "group-l2": Described(
            "mean of the sums of w² over everything a unit owns, in and out", source="arXiv 2301.12900"
        ),
        "bn-scale": Described(
            "mean magnitude of a unit's normalisation scales; group-l1 where it has none", source="arXiv 1708.06519"
        ),
        "taylor": Described(
            "|sum of gradient times weight| over what a unit owns: how much the loss would change",
            needs="training images (--dataset)",
            source="arXiv 1906.10771",
        ),
        "metanet": Described(
            "group-l2 times what a metanetwork's score head says of the unit",
            needs="a model from `metaprune transform`, by a metanetwork with a score head",
        ),
        "random": Described("drawn by the seed: what any other criterion has to beat"),
    }
)
