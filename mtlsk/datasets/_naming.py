"""What an error says about a name that is not there."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LIMIT = 12  # names in a list before it is cut


def listing(names: Iterable[object]) -> str:
    """Quote the names, the first twelve and how many more."""
    words = [repr(str(name)) for name in names]
    more = f" and {len(words) - LIMIT} more" if len(words) > LIMIT else ""
    return ", ".join(words[:LIMIT]) + more


def did_you_mean(name: str, names: Iterable[object]) -> str:
    """Close an error with the closest of the names, or with nothing."""
    known = {str(other).lower(): str(other) for other in names}
    close = get_close_matches(name.lower(), known, n=1)
    return f"; did you mean {known[close[0]]!r}?" if close else ""
