"""A process that dies before one of its steps on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class Dying:
    """Functions that share a count of steps: so many are taken, and the next one fails.

    Attributes
    ----------
    left
        Steps that are still taken.
    how
        What is raised instead of the step after them.
    """

    left: int
    how: BaseException | type[BaseException]

    def step(self, real: Callable[..., Any]) -> Callable[..., None]:
        """``real``, as one of the steps."""

        def step(*arguments: Any, **options: Any) -> None:
            if self.left == 0:
                raise self.how
            self.left -= 1
            real(*arguments, **options)

        return step
