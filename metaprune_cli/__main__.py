"""``python -m metaprune_cli`` is ``metaprune``."""

from __future__ import annotations

from metaprune_cli.cli import main

if __name__ == "__main__":
    main()
