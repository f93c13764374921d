"""Who tells the person who waits."""

from __future__ import annotations


class Teller:
    """Says nothing; the command line gives one that prints, a notebook may give its own."""

    def tell(self, line: str) -> None:
        """One line of news."""

    def progress(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` of ``what``."""
