"""What a push makes on the Hub before its commit, so that a push that fails can take it away again."""

from __future__ import annotations

from collections.abc import Callable

from model_card.hub_calls import is_conflict, is_temporary, retried


class Undo:
    """Remembers how to take away what was made."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []

    def make(self, create: Callable[[], object], unmake: Callable[[], None]) -> None:
        """Make something that is not there yet.

        That it is there already means, the first time, that somebody else made it; after a try without an
        answer, that this try has made it.

        Args:
            create: makes it; raises the Hub's conflict where it is there.
            unmake: takes it away if nothing else has happened to it.
        """
        unanswered = False

        def attempt() -> None:
            nonlocal unanswered
            try:
                create()
            except Exception as error:
                if not (unanswered and is_conflict(error)):
                    unanswered = unanswered or is_temporary(error)
                    raise

        try:
            retried(attempt)
        except Exception:
            if unanswered:
                self._steps.append(unmake)
            raise
        self._steps.append(unmake)

    def run(self, error: BaseException, where: str) -> None:
        """Take everything away; what cannot be is told in the error's message.

        Args:
            error: what made the push fail.
            where: the repository.
        """
        try:
            for unmake in reversed(self._steps):
                retried(unmake)
        except Exception:
            error.args = (
                f"{error}; what was made for it may still be in {where}, empty: the next push fills it",
            )
