"""What checks every annotated argument and result of the package while the tests run."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as the static checker has it
