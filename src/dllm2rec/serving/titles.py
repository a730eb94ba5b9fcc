"""Items by what people type."""

from collections.abc import Sequence
from difflib import get_close_matches

from dllm2rec.core.errors import UserError
from dllm2rec.core.titles import clean_title
from dllm2rec.serving.bundle import Bundle
from dllm2rec.serving.recommender import ItemId


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


def typed_items(bundle: Bundle, history: str) -> list[ItemId]:
    """Find the items of a typed history: the longest text that is an id or a title counts, also where it has commas.

    Titles are known in other cases, with other spaces, and as a log had them before they were cleaned ("Postino, Il"),
    too, where that leaves no doubt.

    Args:
        bundle: whose items they are.
        history: ids, titles or parts of titles, oldest first, with semicolons between, or else commas.

    Raises:
        UserError: something is neither an id nor in one title alone; the message names some that are like it.
    """
    names = dict(zip(reversed(bundle.titles), reversed(bundle.ids), strict=True))  # of equal titles the first
    names |= {str(item): item for item in bundle.ids}
    alike: dict[str, set[ItemId]] = {}
    for item, title in zip(bundle.ids, bundle.titles, strict=True):
        alike.setdefault(_folded(title), set()).add(item)

    def meant(text: str) -> list[ItemId]:
        named = alike.get(_folded(text)) or alike.get(_folded(clean_title(text)), set())
        return [names[text]] if text in names else list(named) if len(named) == 1 else []

    between = ";" if ";" in history else ","
    longest = 2 + max(name.count(between) for name in names)
    parts, found = history.split(between), []
    while parts:
        texts = (between.join(parts[:count]).strip() for count in range(min(longest, len(parts)), 0, -1))
        text = next((text for text in texts if meant(text)), "")
        if text:
            found += meant(text)
        elif alone := parts[0].strip():
            found.append(_find(bundle, alone))
        parts = parts[text.count(between) + 1 :]
    return found


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def _find(bundle: Bundle, text: str) -> ItemId:
    """Find the item whose title holds a text.

    Raises:
        UserError: no item or several; the message names some.
    """
    wanted = text.casefold()
    matches = [place for place, title in enumerate(bundle.titles) if wanted in title.casefold()]
    if len(matches) == 1:
        return bundle.ids[matches[0]]
    if matches:
        some = "; ".join(f"{bundle.ids[place]} ({bundle.titles[place]})" for place in matches[:5])
        raise UserError(f"--history '{text}': {len(matches)} titles hold that; name one by its id: {some}")
    near = get_close_matches(text, bundle.titles, n=3, cutoff=0.5)
    raise UserError(f"--history '{text}': no such id or title{'; did you mean: ' + '; '.join(near) if near else ''}")
