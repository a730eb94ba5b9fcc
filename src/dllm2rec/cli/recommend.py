"""`dllm2rec recommend`: the next items after a history, from a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dllm2rec.cli.options import Json, show
from dllm2rec.core.errors import UserError

if TYPE_CHECKING:
    from dllm2rec.serving.bundle import Bundle


def recommend(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Directory made by `dllm2rec export`.")],
    history: Annotated[str, typer.Option(help="Ids or titles, oldest first, with commas between (or semicolons).")],
    k: Annotated[int, typer.Option(help="How many items.")] = 20,
    exclude_seen: Annotated[bool, typer.Option("--exclude-seen", help="Leave items of the history out.")] = False,
    json: Json = False,
) -> None:
    """Recommend what comes next after a history; needs neither PyTorch nor the dataset.

    Example: dllm2rec recommend work/bundle --history "B00004T1SC, Uno Card Game" --k 10
    """
    from dllm2rec.serving.recommender import Recommender

    recommender = Recommender.load(bundle)
    texts = [text.strip() for text in history.split(";" if ";" in history else ",") if text.strip()]
    items = [_find(recommender.bundle, text) for text in texts]
    found = recommender.recommend([items], k=k, exclude_seen=exclude_seen)[0]
    table = Table(title="the most popular items: nothing of this history is known" if found.fallback else None)
    for name in ("", "id", "title", "score"):
        table.add_column(name)
    for place, (item, title, score) in enumerate(zip(found.items, found.titles, found.scores, strict=True), start=1):
        table.add_row(str(place), str(item), title, f"{score:.3f}")
    show({"history": items, **vars(found)}, table, as_json=json)


def _find(bundle: "Bundle", text: str) -> str | int:
    """Find the item that a text means: an id, a title, or part of one title.

    Raises:
        UserError: no item or several; the message names some.
    """
    from difflib import get_close_matches

    for item, title in zip(bundle.ids, bundle.titles, strict=True):
        if text in {str(item), title}:
            return item
    wanted = text.casefold()
    matches = [place for place, title in enumerate(bundle.titles) if wanted in title.casefold()]
    if len(matches) == 1:
        return bundle.ids[matches[0]]
    if matches:
        some = "; ".join(f"{bundle.ids[place]} ({bundle.titles[place]})" for place in matches[:5])
        raise UserError(f"--history '{text}': {len(matches)} titles hold that; name one by its id: {some}")
    near = get_close_matches(text, bundle.titles, n=3, cutoff=0.5)
    raise UserError(f"--history '{text}': no such id or title{'; did you mean: ' + '; '.join(near) if near else ''}")
