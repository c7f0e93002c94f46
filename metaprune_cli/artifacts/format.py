"""What an artifact's bytes mean: a safetensors file whose metadata holds one JSON document.

    8 bytes   length n of the header, little-endian
    n bytes   JSON: {"__metadata__": {"metaprune": DOCUMENT}, NAME: {"dtype", "shape", "data_offsets"}, ...}
    the rest  the tensors

``DOCUMENT["digest"]`` is the SHA-256 of the whole file with that one field blank (64 zeros). Covering the bytes, rather
than what they parse to, leaves nothing out: not the padding of the header, not ``1e-5`` turned into ``1E-5``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from metaprune_cli.artifacts.strict_json import parse_json

FORMAT_VERSION = 1
KINDS = ("checkpoint", "graph", "hypernetwork", "metanetwork", "model")
METADATA_KEY = "metaprune"
BLANK_DIGEST = "0" * 64
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def dump_document(document: Mapping[str, Any]) -> str:
    """The document as JSON text, equal for equal documents: sorted keys, no spaces, no NaN.

    Half a surrogate pair, as in a file's name that is not UTF-8, is no character: its number is written out.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub(lambda half: f"\\\\u{ord(half[0]):04x}", text)


def parse_document(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The document among a file's metadata.

    Raises:
        ValueError: there is none.
    """
    text = metadata.get(METADATA_KEY)
    if not isinstance(text, str):
        raise ValueError("no document in the header")
    document = parse_json(text)
    if not isinstance(document, dict):
        raise ValueError("the document is not a JSON object")
    return document


def replace_digest(header: bytes, old: str, new: str) -> bytes:
    """The header with another digest; both are 64 characters long, so nothing moves."""
    return header.replace(_field(old), _field(new), 1)


def _field(digest: str) -> bytes:
    """The digest's field as it stands in the file, where the document is a JSON string inside JSON."""
    return json.dumps(f'"digest":"{digest}"')[1:-1].encode()
