"""A catalogue of small, plain models as people write them: name → how to make one, inputs, what to expect."""

from __future__ import annotations

import people_computed_weights
import people_operators
import people_parameters
import people_sequences
import people_vision
from people import Entry

CATALOGUE: dict[str, Entry] = {
    **people_vision.ENTRIES,
    **people_sequences.ENTRIES,
    **people_parameters.ENTRIES,
    **people_computed_weights.ENTRIES,
    **people_operators.ENTRIES,
}
