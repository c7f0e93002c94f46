"""The error family: what went wrong, what was expected, what to do next; each class owns an exit code."""

from __future__ import annotations


class MetapruneError(Exception):
    """Base of every error a user can cause or meet.

    Args:
        what: one sentence that says what is wrong.
        expected: what would have been right.
        got: what was there instead.
        where: the file, parameter or option concerned.
        next_step: what the user can do about it.
        about: the section of settings that this comes from, where a settings file may be the cause.
    """

    exit_code = 2
    title = "Error"

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        got: object = None,
        where: object = None,
        next_step: str | None = None,
        about: str | None = None,
    ) -> None:
        self.what, self.about = what, about
        self.details = {
            "expected": expected,
            "got": got,
            "where": where,
            "next step": next_step,
        }
        super().__init__(str(self))

    def lines(self) -> list[tuple[str, str]]:
        """The details that are present, as (label, text) rows."""
        return [(label, str(text)) for label, text in self.details.items() if text is not None]

    def __str__(self) -> str:
        return "\n".join([self.what, *(f"  {label}: {text}" for label, text in self.lines())])


class InputError(MetapruneError):
    """Bad usage or bad input: a missing file, a wrong option, a model that does not fit. Exit code 2."""

    title = "Bad input"


class TargetError(MetapruneError):
    """A target that cannot be met, or nothing that could be removed. Exit code 3.

    ``feasible`` is the nearest speed-up that can be met, None where there is none.
    """

    exit_code = 3
    title = "Target out of reach"
    feasible: float | None = None


class CorruptFileError(MetapruneError):
    """A file that is damaged, unsafe to open, or of an unknown version or kind. Exit code 4."""

    exit_code = 4
    title = "Corrupt or unsafe file"


class LostProcessError(MetapruneError):
    """A process of a run of several has ended or does not answer. Exit code 5."""

    exit_code = 5
    title = "Process lost"


class NumericsError(MetapruneError):
    """Numbers that cannot be right: NaN, infinity, or a small model unlike the masked one. Exit code 2."""

    title = "Numbers gone wrong"
