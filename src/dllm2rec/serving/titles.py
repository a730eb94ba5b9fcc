"""Items by what people type."""

from collections.abc import Sequence


def search_titles(titles: Sequence[str], text: str, k: int) -> list[int]:
    """List at most k rows whose title holds every word of a text; titles that begin with the text come first.

    Args:
        titles: V titles.
        text: any case; without a word in it nothing is found.
        k: at least 1.
    """
    wanted = text.casefold().strip()
    words = wanted.split()
    if not words:
        return []
    found = [
        (not low.startswith(wanted), len(low), row)
        for row, low in enumerate(map(str.casefold, titles))
        if all(word in low for word in words)
    ]
    return [row for _, _, row in sorted(found)[:k]]
