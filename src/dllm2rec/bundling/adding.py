"""Verb `add-items`: a bundle learns of new items from their titles, without training."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from dllm2rec.bundling.bundles import log_columns, write_manifest
from dllm2rec.core.arrays import read_vectors
from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, require_absent
from dllm2rec.data.catalogue import read_catalogue
from dllm2rec.data.columns import WELL_KNOWN, Columns
from dllm2rec.serving.approximate import write_index
from dllm2rec.serving.bundle import INDEX, ITEMS, NEIGHBOURS, TABLE, Bundle
from dllm2rec.serving.packing import pack, unpack
from dllm2rec.serving.recommender import ItemId, Recommender
from dllm2rec.serving.text import TextProjection
from dllm2rec.teachers.encoder import encode_as
from dllm2rec.teachers.packaged import DEFAULT_ENCODER

LISTED = 10
"""Items of a list in which new ones are counted."""


@dataclass(frozen=True, kw_only=True)
class Added:
    """What was added.

    Attributes:
        path: the new bundle.
        new: items that were added.
        known: items that it had already, which were passed over.
        items: that it has now.
        bias: what was added to the score of each new item.
        listed: mean share of new items in the ten best of the bundle's example histories; None without examples.
    """

    path: Path
    new: int
    known: int
    items: int
    bias: float
    listed: float | None


def add_items(
    bundle: Bundle,
    items: Path,
    *,
    out: Path,
    model: str | None = None,
    vectors: Path | None = None,
    columns: Columns = WELL_KNOWN,
    bias: float | None = None,
) -> Added:
    """Write a bundle with more items; the vectors of the old ones are the same bits, and items it has are passed over.

    A new item gets, of a student, ``e = w_e g(z)`` and the offset that it borrows, if items that training never saw do;
    of counting the direction of its text; of both the bias of new items.

    Args:
        bundle: of a student whose output is tied to text, or of counting that reads titles.
        items: a table of ids and titles.
        out: the new bundle; must not exist.
        model: the encoder that training used; by default the one that the bundle names, else MiniLM.
        vectors: `.npy`, `[N, Dt]`, text vectors of the table's items, where no sentence encoder made those of training.
        columns: names of the columns; those that are not given are as in the log of the bundle's dataset.
        bias: added to the score of each new item; by default the weight of new items that validation chose.

    Raises:
        UserError: the student reads no text, the bias is not finite, no id is new, a title is missing, or the encoder
            is another one.
    """
    require_absent(out)
    if model is not None and vectors is not None:
        raise UserError(f"--model {model} and --vectors {vectors}: both say how titles read; give one of them")
    projection = TextProjection.load(bundle)
    bias = projection.bias if bias is None else bias
    if not np.isfinite(bias):
        raise UserError(f"--bias {bias}: must be a finite number")
    known = pl.Series(bundle.ids)
    given = read_catalogue(items, columns.over(log_columns(bundle)), known=known)
    rows = (~given["item_id"].is_in(known.implode())).arg_true()
    if not len(rows):
        raise UserError(f"{items}: no item of it is new to {bundle.path}; there is nothing to add")
    ids, titles = (given[name][rows].to_list() for name in ("item_id", "title"))
    width = projection.tensors["mean"].shape[0]
    if vectors is None:
        source = bundle.manifest.text
        name = model or (source.model if source is not None and source.model else DEFAULT_ENCODER)
        encoded = encode_as(width, [*(bundle.titles[row] for row in projection.probes), *titles], model=name)
        probes, found = np.split(encoded, [len(projection.probes)])
        projection.require_same_encoder(probes, name)
    else:
        found = read_vectors(vectors, given.height, width)[rows.to_numpy()]
    with atomic_path(out) as target:
        target.mkdir()  # not copytree, which takes over that a bundle may not be written
        for name in bundle.manifest.files:
            shutil.copyfile(bundle.path / name, target / name)
        catalogue = [*zip(bundle.ids, bundle.titles, strict=True), *zip(ids, titles, strict=True)]
        (target / ITEMS).write_text(json.dumps(catalogue, ensure_ascii=False), encoding="utf-8")
        table = load_file(target / TABLE)
        if bias:
            table.setdefault("bias", np.zeros(len(bundle.ids), np.float32))
        new = pack(projection(found, bundle.input), "input", bundle.manifest.precision)
        new["bias"] = np.full(len(ids), bias, np.float32)
        extended = {name: _extended(old, new.get(name), len(ids)) for name, old in table.items()}
        save_file(extended, target / TABLE)
        if bundle.neighbours is not None:
            bundle.neighbours.extended(len(ids)).save(target / NEIGHBOURS)
        if bundle.has_index:
            write_index(target / INDEX, unpack(extended, "input"), extended.get("bias"))
        write_manifest(
            target, replace(bundle.manifest, num_items=len(catalogue), added=bundle.manifest.added + len(ids))
        )
        listed = _listed(Recommender.load(target), set(ids))
    return Added(path=out, new=len(ids), known=given.height - len(rows), items=len(catalogue), bias=bias, listed=listed)


def _listed(recommender: Recommender, new: set[ItemId]) -> float | None:
    histories = [example["history"] for example in recommender.bundle.examples]
    if not histories:
        return None
    found = recommender.recommend(histories, k=LISTED)
    return float(np.mean([np.mean([item in new for item in one.items]) for one in found]))


def _extended(old: NDArray[Any], new: NDArray[Any] | None, count: int) -> NDArray[Any]:
    more = np.zeros((count, *old.shape[1:]), old.dtype) if new is None else new
    return np.concatenate([old, more])
