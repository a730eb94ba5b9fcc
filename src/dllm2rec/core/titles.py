"""Titles as people would write them."""

import html
import re

_ARTICLE_LAST = re.compile(r"(.+), (The|A|An|Das|Der|Die|El|Il|L[aeo]s?)( \(\d{4}\))?")


def clean_title(title: str) -> str:
    """Resolve HTML entities, collapse white space, and put an article at the end in front.

    >>> clean_title("Postino, Il (1994)")
    'Il Postino (1994)'
    """
    clean = " ".join(html.unescape(title).split())
    found = _ARTICLE_LAST.fullmatch(clean)
    return clean if found is None else f"{found[2]} {found[1]}{found[3] or ''}"
