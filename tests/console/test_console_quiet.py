from __future__ import annotations

import logging
import warnings

from metaprune_cli.console.progress import listening


def test_quiet_is_silent_whoever_speaks(capsys, recwarn):
    log = logging.getLogger("metaprune_cli.workflows.made")
    with listening(quiet=True) as progress:
        progress.begin("train", 1)
        progress.step(loss=1.0)
        progress.end()
        log.warning("a checkpoint that does not fit")
        warnings.warn("somebody's deprecation", stacklevel=1)
    assert capsys.readouterr().err == ""
    assert not recwarn.list
    assert log.isEnabledFor(logging.WARNING)  # afterwards, all is as it was
