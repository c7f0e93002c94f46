"""What the document of each kind of artifact may say; checked on every reading.

The digest shows that a file is whole, not who made it: whoever makes a file can make its digest. So nothing in a
document is used before it has passed here: first it is plain JSON of bounded size (``plain``), then it has the fields
of its kind (one module each, ``KINDS``). What depends on the tensors beside the document is checked where both are put
together: ``graph/checks.py``, ``methods/metanet/network.py``, ``training/state.py``, ``models/load.py``.
"""

from __future__ import annotations

from metaprune_cli.artifacts.schemas.check import check_contents, refuse, shortened

__all__ = ["check_contents", "refuse", "shortened"]
