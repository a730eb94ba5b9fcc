"""A language model that runs elsewhere: what it is asked, and its answers as knowledge.

What it writes is grounded as BIGRec grounds it (Bao et al. 2023), by the vectors of a sentence encoder.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, exclusive, hash_file, require_absent
from dllm2rec.data import Dataset, Split
from dllm2rec.data.sources import read_table
from dllm2rec.data.splits import SPLITS
from dllm2rec.data.values import require
from dllm2rec.knowledge.schema import KnowledgeManifest, Labels
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
        UserError: something is at ``out``, or a limit exceeds a split.
    """
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
    dataset: Dataset, answers: Path, *, out: Path, name: str = "", model: str = DEFAULT_ENCODER
) -> Knowledge:
    """Turn answers to what `ask` wrote into knowledge.

    Each has `example_id` and either `text`, a title that was written, or `items`, ids with the best first. A text is
    grounded: items are ranked by the distance of their titles from it; one of nothing is no label. Of lists the place
    is the distance, and all are as deep as the shortest.

    Args:
        dataset: that was asked about.
        answers: a table in any format that `prepare` reads (lists: Parquet or JSON lines).
        out: the knowledge directory.
        name: who answered, for tables.
        model: the sentence encoder whose item vectors the knowledge gets, and that grounds texts.

    Raises:
        UserError: a column is missing, an example is not of the dataset or answered twice, an item is unknown or
            listed twice, or something else is at ``out``.
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
    listed = _lists(dataset, table["items"], answers) if kind == "items" else None
    encoder = load_encoder(model)
    vectors = encoder.encode(dataset.titles, words=encoder.has_words)
    if listed is None:
        texts = [" ".join(str(text or "").split()) for text in table["text"].to_list()]
        kept = np.flatnonzero(np.array([text != "" for text in texts]))
        if not len(kept):
            raise UserError(f"{answers}: every text is empty")
        grounding = Grounding(vectors, titles=dataset.titles, train_counts=dataset.train_counts())
        texts = [texts[row] for row in kept]
        states = encoder.encode(texts, words=encoder.has_words)
        labels = _grounded(grounding, states, texts, example[kept], target[kept])
    else:
        labels = _listed(listed, example, target)
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="imported",
        model=name,
        settings={"answers": hash_file(answers), "model": model, "words": encoder.has_words},
        depth=labels.ranked_items.shape[1],
        vector_size=vectors.shape[1],
    )
    with exclusive(out):
        writer = KnowledgeWriter(out, manifest)
        writer.write_item_vectors(vectors)
        writer.append(labels.take(np.flatnonzero(~np.isin(labels.example_id, writer.labelled_ids()))))
        return Knowledge.load(out)


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
    require(given.is_first_distinct(), column, file, "is answered a second time")
    return given.to_numpy(), target.to_numpy()


def _lists(dataset: Dataset, column: pl.Series, file: Path) -> NDArray[np.int32]:
    """Return lists of ids as lists of items, `[N, K]`."""
    if not isinstance(column.dtype, pl.List):
        raise UserError(f"{file}: items must be lists of ids, not {column.dtype}; write JSON lines or Parquet")
    lengths = column.list.len().fill_null(0)
    require(lengths > 0, column, file, "lists nothing")
    place = {str(item): index for index, item in enumerate(dataset.items["item_id"].to_list())}
    found = np.empty((len(column), lengths.to_numpy().min()), np.int32)
    for row, listed in enumerate(column.to_list(), start=1):
        unknown = next((item for item in listed if str(item) not in place), None)
        if unknown is not None:
            raise UserError(f"{file}: row {row}: items {unknown!r} is no item of {dataset.path}; leave it out")
        again = next((item for item, count in Counter(listed).items() if count > 1), None)
        if again is not None:
            raise UserError(f"{file}: row {row}: items {again!r} is listed twice; leave one out")
        found[row - 1] = [place[str(item)] for item in listed[: found.shape[1]]]
    return found
