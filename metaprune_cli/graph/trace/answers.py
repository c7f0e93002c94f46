"""What Python is told where it asks a tensor a yes-or-no question (``if mask.all()``), and all that it may be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from metaprune_cli.errors import InputError

_MOST = 8
"""How many questions a pass may ask, and in how many ways they may be answered."""


class Answers:
    """Answers for one pass: the given ones, then no."""

    def __init__(self, given: Sequence[bool] = ()) -> None:
        self.given = tuple(given)
        self.asked: list[bool] = []

    def next(self) -> bool:
        """The answer to the next question.

        Raises:
            InputError: there is no end of them (a loop that runs until something has converged).
        """
        if len(self.asked) >= _MOST:
            raise InputError("The model asks its data too many questions", expected=f"{_MOST} at most")
        answer = self.given[len(self.asked)] if len(self.asked) < len(self.given) else False
        self.asked.append(answer)
        return answer


def all_answers(first: Sequence[bool], ask: Callable[[Answers], None]) -> Iterator[tuple[bool, ...]]:
    """Every way in which the questions of a pass may be answered.

    Args:
        first: what it is answered on the example; this comes first.
        ask: runs a pass, which may ask other questions after other answers.

    Raises:
        InputError: there are too many ways.
    """
    open_ways, found = [tuple(first)], 0
    while open_ways:
        way = open_ways.pop(0)
        answers = Answers(way)
        ask(answers)
        asked = tuple(answers.asked)
        open_ways += [(*asked[:at], not asked[at]) for at in range(len(way) if found else 0, len(asked))]
        found += 1
        if found + len(open_ways) > _MOST:
            raise InputError("The model's flow depends on its data in too many ways", expected=f"{_MOST} at most")
        yield asked
