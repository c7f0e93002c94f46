"""What checks every annotated argument and result of the package while the tests run."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

CONF = BeartypeConf(is_pep484_tower=True, claw_is_pep526=False)  # an int is a float, as the static checker has it
check = beartype(conf=CONF)
