"""The process's own streams: they take any text, nothing reaches them raw, and a reader may go away."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

from metaprune_cli.console.text import LONGEST_TEXT, line, lines

READER_GONE = 141  # 128 + SIGPIPE: what a shell says of a tool that its reader left


def prepare() -> None:
    """Make the streams ready for what comes: once for each process that writes.

    A character that the encoding lacks (``LANG=C``, a Windows code page) is written as an escape; a stream that was
    closed before the start swallows what it gets; warnings and log lines, which may name files and what is in them,
    pass through ``text``.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as the process
        elif isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # another file was put beneath the stream, of which it cannot know the place
                stream.reconfigure(errors="backslashreplace")
    warnings.formatwarning = _warning
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Shown())


def silence_() -> None:
    """Let vanish what is still to be written to a broken stream: the end of the process would stumble on it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - not a path
                os.dup2(nowhere.fileno(), stream.fileno())


class _Shown(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return line(super().formatMessage(record), LONGEST_TEXT)  # a name cannot begin a second message

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return lines(super().formatException(ei))


_PLAIN = warnings.formatwarning


def _warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return lines(_PLAIN(message, category, filename, lineno, line))
