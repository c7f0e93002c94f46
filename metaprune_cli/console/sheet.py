"""CSV files: the only place that writes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from metaprune_cli.console.text import cell


def csv_text(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """The records as CSV with a header; ``None``, or a key that is not there, is an empty cell."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([cell(column) for column in columns])
    writer.writerows([cell(record.get(column)) for column in columns] for record in records)
    return stream.getvalue()
