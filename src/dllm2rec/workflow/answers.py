"""A language model that runs elsewhere: what it is asked, and its answers as knowledge.

What it writes is grounded as BIGRec grounds it (Bao et al. 2023), by the vectors of a sentence encoder.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, exclusive, require_absent
from dllm2rec.core.progress import Say
from dllm2rec.data import Dataset, Split
from dllm2rec.data.sources import JSON_LINES, read_table, require_text
from dllm2rec.data.splits import SPLITS
from dllm2rec.data.values import require, wrong_type
from dllm2rec.knowledge.schema import MARKER, KnowledgeManifest, Labels, read_manifest
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter
from dllm2rec.settings.teacher import BigRecTeacher
from dllm2rec.teachers.encoder import load_encoder
from dllm2rec.teachers.grounding import Grounding
from dllm2rec.teachers.packaged import DEFAULT_ENCODER
from dllm2rec.workflow.budget import selection
from dllm2rec.workflow.teaching import vectors_named

DEPTH = 100
"""Items that a written answer is grounded to."""
PROMPT = (
    "A user chose these items, the oldest first:\n{titles}\n"
    "Write the title of the item that this user will most likely choose next, and nothing else."
)


def ask(dataset: Dataset, settings: BigRecTeacher, *, out: Path) -> dict[Split, int]:
    """Write what a language model is to be asked, a JSON object a line, without what came next.

    Each has `example_id` (text, for it has 64 bits), `split`, `history` (ids) and `titles`, oldest first, and a
    `prompt`, which may be replaced by one's own.

    Args:
        dataset: to be labelled.
        settings: `limits`, `choose`, `vectors`, `seed` and `max_titles` count.
        out: a file that does not exist yet.

    Returns:
        How many questions there are of each split.

    Raises:
        UserError: something is at ``out``, its name says that it is no JSON lines, or a limit exceeds a split.
    """
    if out.suffix not in JSON_LINES:
        raise UserError(f"{out}: questions are written as JSON lines; name the file .jsonl")
    require_absent(out)
    ids, titles = dataset.items["item_id"].to_list(), dataset.titles
    chosen = selection(dataset, settings, item_vectors=vectors_named(dataset, settings))
    with atomic_path(out) as target, target.open("w", encoding="utf-8") as lines:
        for split, examples in chosen.items():
            for example, padded in zip(examples.example_id.tolist(), examples.history, strict=True):
                items = padded[padded != dataset.num_items][-settings.max_titles :].tolist()
                told = [titles[item] for item in items]
                question = {
                    "example_id": str(example),
                    "split": split,
                    "history": [ids[item] for item in items],
                    "titles": told,
                    "prompt": PROMPT.format(titles="\n".join(f"- {title}" for title in told)),
                }
                lines.write(json.dumps(question, ensure_ascii=False) + "\n")
    return {split: len(examples) for split, examples in chosen.items()}


def import_answers(
    dataset: Dataset,
    answers: Path,
    *,
    out: Path,
    name: str = "",
    model: str = DEFAULT_ENCODER,
    say: Say = lambda _: None,
) -> Knowledge:
    """Turn answers to what `ask` wrote into knowledge; a longer table later adds to what is there.

    Each has `example_id` and either `text`, a title that was written, or `items`, ids with the best first. A text is
    grounded: items are ranked by the distance of their titles from it; one of nothing is no label. Of lists the place
    is the distance. All are cut to one depth, that of what is there already, or else the one that keeps most of what
    was listed; shorter ones, at most half of all, are no labels. An answer that is there twice counts once.

    Args:
        dataset: that was asked about.
        answers: a table in any format that `prepare` reads (lists: Parquet or JSON lines).
        out: the knowledge directory; interrupted, it goes on.
        name: who answered, for tables.
        model: the sentence encoder whose item vectors the knowledge gets, and that grounds texts.
        say: told in words what is left out, and what looks wrong.

    Raises:
        UserError: a column is missing, a text is none, an example is not of the dataset, has two answers or was
            answered otherwise before, an item is unknown or listed twice, or something else is at ``out``.
    """
    table = read_table(answers)
    kinds = [kind for kind in ("text", "items") if kind in table.columns]
    if "example_id" not in table.columns or len(kinds) != 1:
        raise UserError(
            f"{answers}: has the columns {', '.join(table.columns)}; it must have example_id, and either text, what "
            "was written, or items, ids with the best first"
        )
    (kind,) = kinds
    example, target = _examples(dataset, table["example_id"], answers)
    texts, ranked = [""] * len(example), None
    if kind == "items":
        lists = _lists(dataset, table["items"], answers)
        lengths = np.array([len(one) for one in lists])
        there = read_manifest(out) if (out / MARKER).is_file() else None
        depth = there.depth if there and there.settings.get("answers") == kind else _best_depth(lengths)
        kept = np.flatnonzero(lengths >= depth)
        if len(kept) < len(lists):
            say(
                f"{answers}: {len(lists) - len(kept):,} of {len(lists):,} answers list fewer than {depth} items and "
                "are left out"
            )
        kept = _once(kept, [one[:depth] for one in lists], example, answers, say)
        ranked = np.array([lists[row][:depth] for row in kept], np.int32).reshape(-1, depth)
    else:
        texts = _texts(table["text"], answers)
        kept = np.flatnonzero(np.array([text != "" for text in texts]))
        if len(kept) < len(texts):
            say(f"{answers}: {len(texts) - len(kept):,} of {len(texts):,} answers are empty and are left out")
        kept = _once(kept, texts, example, answers, say)
        text, times = Counter(texts[row] for row in kept).most_common(1)[0]
        if 2 * times > len(kept) > 1:
            say(f"{answers}: {times:,} of {len(kept):,} answers are {text[:60]!r}; is that a title?")
    example, target, texts = example[kept], target[kept], [texts[row] for row in kept]
    encoder = load_encoder(model)
    words = encoder.has_words
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="imported",
        model=name,
        settings={"answers": kind, "model": model, "words": words},
        depth=min(DEPTH, dataset.num_items) if ranked is None else ranked.shape[1],
        vector_size=encoder.width(words=words),
    )
    with exclusive(out):
        writer, parts = KnowledgeWriter(out, manifest), out / "encoding"
        if not writer.has_item_vectors():
            writer.write_item_vectors(encoder.encode(dataset.titles, words=words, keep=parts))
        shutil.rmtree(parts, ignore_errors=True)
        known = Knowledge.load(out)
        _require_same_answers(known.labels, example, texts, ranked, answers)
        new = np.flatnonzero(~np.isin(example, known.labels.example_id))
        if ranked is not None:
            writer.append(_listed(ranked[new], example[new], target[new]))
        elif len(new):
            assert known.item_vectors is not None  # noqa: S101 - written above
            grounding = Grounding(known.item_vectors, titles=dataset.titles, train_counts=dataset.train_counts())
            texts = [texts[row] for row in new]
            states = encoder.encode(texts, words=words)
            writer.append(_grounded(grounding, states, texts, example[new], target[new]))
        return Knowledge.load(out)


def _texts(column: pl.Series, file: Path) -> list[str]:
    """Return what was written, on one line each; nothing where nothing was.

    Raises:
        UserError: it is no text, or there is none at all.
    """
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise wrong_type(column, file, "is no text; write the title as it was answered")
    require_text(file, column.name)
    texts = [" ".join(text.split()) for text in column.cast(pl.String).fill_null("").to_list()]
    if not any(texts):
        raise UserError(f"{file}: every text is empty")
    return texts


def _once(
    rows: NDArray[np.int64], answers: Sequence[object], example: NDArray[np.int64], file: Path, say: Say
) -> NDArray[np.int64]:
    """Leave out the rows that say the same as an earlier one, which a batch that was retried may write.

    Raises:
        UserError: an example has another answer than in an earlier row.
    """
    first: dict[int, int] = {}
    same = np.ones(len(example), np.bool_)
    for row in rows.tolist():
        same[row] = answers[row] == answers[first.setdefault(int(example[row]), row)]
    require(pl.Series(same), pl.Series("example_id", example), file, "is answered a second time, and otherwise")
    if len(first) < len(rows):
        say(f"{file}: {len(rows) - len(first):,} of {len(rows):,} answers repeat an earlier one and are left out")
    return np.array(list(first.values()), np.int64)


def _require_same_answers(
    known: Labels, example: NDArray[np.int64], texts: list[str], ranked: NDArray[np.int32] | None, file: Path
) -> None:
    place = {identity: row for row, identity in enumerate(known.example_id.tolist())}
    for row, identity in enumerate(example.tolist()):
        there = place.get(identity)
        if there is None:
            continue
        same = texts[row] == known.generated_text[there]
        if ranked is not None:
            same = np.array_equal(ranked[row], known.ranked_items[there])
        if not same:
            raise UserError(
                f"{file}: example_id {identity} was answered otherwise in what is there already; choose another --out"
            )


def _grounded(
    grounding: Grounding,
    states: NDArray[np.float32],
    texts: list[str],
    example: NDArray[np.int64],
    target: NDArray[np.int32],
) -> Labels:
    found = grounding.rank(states, depth=min(DEPTH, grounding.num_items))
    return Labels(
        example_id=example,
        ranked_items=found.ranked_items,
        distances=found.distances,
        target_distance=grounding.distance(states, target),
        generated_text=texts,
    )


def _listed(ranked: NDArray[np.int32], example: NDArray[np.int64], target: NDArray[np.int32]) -> Labels:
    """Take places for distances; what is not listed comes after the last."""
    places = np.arange(1, ranked.shape[1] + 1, dtype=np.float32)
    hit = ranked == target[:, None]
    return Labels(
        example_id=example,
        ranked_items=ranked,
        distances=np.tile(places, (len(ranked), 1)),
        target_distance=np.where(hit.any(axis=1), places[hit.argmax(axis=1)], places[-1] + 1),
        generated_text=[""] * len(ranked),
    )


def _examples(dataset: Dataset, column: pl.Series, file: Path) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the examples that are answered and what came next in each, `[N]` both."""
    if not (column.dtype.is_integer() or column.dtype == pl.String):
        raise wrong_type(column, file, "is no id as `dllm2rec ask` writes it, a text")
    given = column.cast(pl.String).cast(pl.Int64, strict=False)
    parts = [dataset.training_examples("before-cut"), *(dataset.examples(split) for split in SPLITS)]
    known = pl.DataFrame(
        {
            "example_id": np.concatenate([part.example_id for part in parts]),
            "target": np.concatenate([part.target for part in parts]),
        }
    ).unique("example_id")
    target = pl.DataFrame({"example_id": given}).join(known, on="example_id", how="left", maintain_order="left")[
        "target"
    ]
    require(target.is_not_null(), column, file, f"is no example of {dataset.path}")
    return given.to_numpy(), target.to_numpy()


def _best_depth(lengths: NDArray[np.int64]) -> int:
    """Return the depth at which most of what was listed is kept, shorter lists left out, and those at most half of all.

    >>> [_best_depth(np.array(lengths)) for lengths in ([20] * 99 + [1], [5, 6, 7], [100, 3, 3])]
    [20, 5, 3]
    """
    depths, counts = np.unique(lengths, return_counts=True)
    as_long = np.cumsum(counts[::-1])[::-1]
    return int(depths[np.argmax(np.where(2 * as_long >= len(lengths), depths * as_long, 0))])


def _lists(dataset: Dataset, column: pl.Series, file: Path) -> list[list[int]]:
    """Return lists of ids as lists of items."""
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        raise UserError(f"{file}: items must be lists of ids, not {column.dtype}; write JSON lines or Parquet")
    require(column.list.len().fill_null(0) > 0, column, file, "lists nothing")
    place = {str(item): index for index, item in enumerate(dataset.items["item_id"].to_list())}
    rows = [[place.get(_id(item), -1) for item in listed] for listed in column.to_list()]
    require(pl.Series([min(row) >= 0 for row in rows]), column, file, f"lists what is no item of {dataset.path}")
    require(pl.Series([len(set(row)) == len(row) for row in rows]), column, file, "lists an item twice")
    return rows


def _id(item: object) -> str:
    """Write an id as the catalogue does; whole numbers may have come as floats."""
    return str(int(item)) if isinstance(item, float) and item.is_integer() else str(item)
