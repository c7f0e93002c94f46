"""Pictures: the only place that makes them, and that says where one may be written."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from metaprune_cli.errors import InputError
from metaprune_cli.workflows.paths import Replaceable, check_targets, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


MARK = b"\x89PNG"


def png_of(pixels: Tensor) -> bytes:
    """The file of an image uint8 (c, h, w), gray or of three colours."""
    from PIL import Image

    array = pixels[0].numpy() if len(pixels) == 1 else pixels.movedim(0, -1).contiguous().numpy()
    written = io.BytesIO()
    Image.fromarray(array).save(written, format="png")
    return written.getvalue()


def is_png(file: Path) -> bool:
    """Whether a file begins as a picture of this kind does."""
    with file.open("rb") as content:
        return content.read(len(MARK)) == MARK


PICTURE = Replaceable("a picture", is_png)


def check_drawing(place: Path | None) -> None:
    """Make sure, before any work is done, that ``--draw`` can write its picture and destroys nothing.

    Raises:
        InputError: it cannot, or would, or is not named as a PNG file.
    """
    if place is None:
        return
    if place.suffix.lower() != ".png":
        raise InputError("The picture must be a PNG file.", expected="FILE.png", got=str(place), where="--draw")
    check_targets([place], PICTURE)


def write_drawing(place: Path | None, draw: Callable[[Path], None]) -> None:
    """Let ``draw`` make the picture, and the folders it is in; nothing where there is no place for one."""
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, draw)


def data_uri(png: bytes) -> str:
    """The file as a page has it within itself: letters, digits and a few signs, none of which has to be escaped."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure to draw on; it is written to ``path``, a PNG, at the end.

    Text in it is text: a ``$`` begins no formula, and a letter that the font lacks is a box.

    Args:
        path: the file.
        width: in inches, as is ``height``.
    """
    # The object interface: pyplot would choose a backend and keep state.
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png", metadata={"Software": None})
