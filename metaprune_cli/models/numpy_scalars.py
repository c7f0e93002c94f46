"""NumPy's numbers in a checkpoint (an epoch's accuracy, say), read as Python's: nothing of NumPy is called."""

from __future__ import annotations

import struct
from typing import Any

_FORMATS = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_FORMATS |= {"f2": "e", "f4": "f", "f8": "d"}


class NumberType:
    """Stands for ``numpy.dtype``: the kind and size of a number, as pickles say it."""

    def __init__(self, code: str, *_: Any) -> None:
        if code not in _FORMATS:
            raise TypeError(f"numbers of NumPy's type {code!r:.40}")
        self.format = _FORMATS[code]
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        """The version, the order of the bytes, and what only arrays of structures have."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "=", "|"):
            raise TypeError(f"a byte order of {order!r:.40}")
        self.order = "=" if order == "|" else order


def number(kind: Any, data: Any) -> bool | int | float:
    """Stands for NumPy's constructor of scalars.

    Raises:
        TypeError: it is no number.
    """
    if type(kind) is not NumberType or type(data) is not bytes:
        raise TypeError("a scalar of NumPy that is not a number")
    try:
        (value,) = struct.unpack(kind.order + kind.format, data)
    except struct.error as error:
        raise TypeError("a scalar of NumPy that is damaged") from error
    return value  # type: ignore[no-any-return]


STAND_INS: tuple[tuple[Any, str], ...] = (
    (NumberType, "numpy.dtype"),
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
)
"""What is called in the place of which names of a pickle."""
