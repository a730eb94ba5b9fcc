"""Texts that a language model wrote about items, users and examples, each with its vector.

They lie beside the labels as `texts-KIND-NNNNNN.parquet`, each file whole or not there. A kind names what a text is
about and what its key is: `item` the item, `user` the row of the user, `chain` the `example_id` of a training example.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PanicException, PolarsError

from dllm2rec.core.files import atomic_path
from dllm2rec.knowledge.schema import REMEDY, DamagedError

TextKind = Literal["item", "user", "chain"]
KINDS: tuple[TextKind, ...] = ("item", "user", "chain")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """N texts of one kind.

    Attributes:
        key: `[N]` int64, what each is about.
        text: N texts.
        vectors: `[N, D_t]` float32, what a sentence encoder makes of them.
    """

    key: NDArray[np.int64]
    text: list[str]
    vectors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.key)

    def spread(self, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Lay the vectors out by key, `[count, D_t]`, zero where there is no text; and say where there is one."""
        vectors = np.zeros((count, self.vectors.shape[1]), np.float32)
        known = np.zeros(count, bool)
        vectors[self.key], known[self.key] = self.vectors, True
        return vectors, known


def load_texts(path: Path, size: int | None) -> dict[TextKind, Texts]:
    """Read the texts of a knowledge directory, ordered by key; a kind without any is left out.

    Raises:
        DamagedError: a file is missing or damaged, or a vector has another size than ``size`` or is not finite.
    """
    found: dict[TextKind, Texts] = {}
    for kind in KINDS:
        files = _files(path, kind)
        if files:
            missing = [_file(path, kind, number) for number in range(len(files))]
            if files != missing:
                raise DamagedError(f"{sorted(set(missing) - set(files))[0]}: missing (there are later ones); {REMEDY}")
            found[kind] = _join([_read(file, size) for file in files])
    return found


class TextWriter:
    """Writes the texts of one kind; what an interrupted writer left is continued, and damaged files are removed.

    Args:
        path: the knowledge directory.
        kind: of all texts.
        size: D_t.
    """

    def __init__(self, path: Path, kind: TextKind, size: int) -> None:
        self._path, self._kind = path, kind
        self._keys: set[int] = set()
        self._count = 0
        for file in _files(path, kind):
            try:
                texts = _read(file, size)
            except DamagedError:
                file.unlink()
                continue
            if file != _file(path, kind, self._count):
                file.replace(_file(path, kind, self._count))
            self._count += 1
            self._keys |= set(texts.key.tolist())

    @property
    def keys(self) -> frozenset[int]:
        """What there is a text about."""
        return frozenset(self._keys)

    def append(self, texts: Texts) -> None:
        """Write texts as one more file.

        Raises:
            UserError: the disk refuses.
        """
        table = pl.DataFrame(
            {
                "key": texts.key.astype(np.int64, copy=False),
                "text": pl.Series(texts.text, dtype=pl.String),
                "vector": pl.Series(texts.vectors.astype(np.float32).ravel()).reshape((-1, texts.vectors.shape[1])),
            }
        )
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        with atomic_path(_file(self._path, self._kind, self._count)) as target:
            target.write_bytes(buffer.getbuffer())
        self._count += 1
        self._keys |= set(texts.key.tolist())


def _file(path: Path, kind: TextKind, number: int) -> Path:
    return path / f"texts-{kind}-{number:06d}.parquet"


def _files(path: Path, kind: TextKind) -> list[Path]:
    return sorted(path.glob(f"texts-{kind}-*.parquet"))


def _read(file: Path, size: int | None) -> Texts:
    try:
        table = pl.read_parquet(file, glob=False)
        texts = Texts(
            key=table["key"].cast(pl.Int64).to_numpy(writable=True),
            text=table["text"].to_list(),
            vectors=table["vector"].to_numpy(writable=True).astype(np.float32, copy=False),
        )
    except (PolarsError, PanicException, ValueError, OSError) as error:
        raise DamagedError(f"{file}: damaged or not a file of texts ({error}); {REMEDY}") from None
    if texts.vectors.shape[1] != size or not np.isfinite(texts.vectors).all():
        raise DamagedError(f"{file}: its vectors are not finite, or not of size {size}; {REMEDY}")
    return texts


def _join(parts: Sequence[Texts]) -> Texts:
    key = np.concatenate([part.key for part in parts])
    order = np.argsort(key, kind="stable")
    text = [one for part in parts for one in part.text]
    vectors = np.concatenate([part.vectors for part in parts])[order]
    return Texts(key=key[order], text=[text[row] for row in order.tolist()], vectors=vectors)
