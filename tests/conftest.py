"""Named axes are checked while the tests run, and one thread does the arithmetic: the tests' tensors are tiny."""

from __future__ import annotations

import os

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for every process that a test starts

# Before anything of the package is imported. Not cli and console: Typer and terminals hand over what they like.
CHECKED = ("artifacts", "config", "data", "graph", "metanet", "metrics", "models", "pruning", "stages", "training")
install_import_hook([f"metaprune_cli.{name}" for name in CHECKED], "type_checker.check")
