"""A name, a folder or a GGUF file becomes a language model that is ready to be tuned and to write."""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from dllm2rec.core.errors import UserError, first_line, suggest
from dllm2rec.core.files import atomic_path, hash_file, hash_json
from dllm2rec.core.memory import free_memory
from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.teachers.packaged import PACKAGED, packaged_file

_GGUF_MAGIC = b"GGUF"
_FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_LOADING_ERRORS = (SafetensorError, OSError, ValueError, KeyError, RuntimeError, NotImplementedError, TypeError)


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A causal language model and its tokenizer.

    Attributes:
        model: a transformers causal language model, in evaluation mode.
        tokenizer: its tokenizer.
        name: what the user called it.
        revision: hash of the file or folder, or the commit on the hub.
    """

    model: Any
    tokenizer: Any
    name: str
    revision: str

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.model.device)


def cache_directory() -> Path:
    """Return where converted models are kept: `DLLM2REC_CACHE`, or `dllm2rec` in the user's cache directory."""
    if chosen := os.environ.get("DLLM2REC_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "dllm2rec"


def choose_dtype() -> torch.dtype:
    """Return bfloat16 where the processor multiplies it fast, else float32.

    With AVX512-BF16 or AMX bfloat16 is about twice as fast as float32; without them, several times slower.
    """
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _FAST_BFLOAT16 & _processor_flags() else torch.float32


def load_llm(name: str, *, revision: str | None = None) -> LanguageModel:
    """Load a language model.

    Args:
        name: short name of a packaged model, a directory in transformers' format, a `.gguf` file, or a hub name.
        revision: branch, tag or commit, for a hub name.

    Returns:
        The model on the GPU where there is one, in the precision that the processor is fast at.

    Raises:
        UserError: there is no such model, or what is there is not one; the message says what can be used instead.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    path = Path(name)
    if name in PACKAGED:
        folder, identity = _converted(packaged_file(name, cache_directory()))
    elif path.is_file():
        folder, identity = _converted(path)
    elif path.is_dir():
        folder, identity = str(path), _folder_identity(path)
    elif path.suffix != ".gguf" and _HUB_NAME.fullmatch(name):
        folder, identity = name, ""
    else:
        raise UserError(
            f"{name}: no such language model: not a directory, not a .gguf file, not a hub name (owner/name), "
            f"and not a packaged model{suggest(name, PACKAGED)}"
        )
    model, tokenizer = _load(name, folder, revision)
    model.generation_config = transformers.GenerationConfig()  # a chat model's penalties are for chats, not for titles
    device = "cuda" if torch.cuda.is_available() else "cpu"
    commit = identity or str(getattr(model.config, "_commit_hash", None) or revision or "main")
    return LanguageModel(model=model.to(device).eval(), tokenizer=tokenizer, name=name, revision=commit)


def _load(name: str, folder: str, revision: str | None) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    options = {} if revision is None else {"revision": revision}
    try:
        _require_room(
            name, AutoConfig.from_pretrained(folder, **options), choose_dtype(), on_gpu=torch.cuda.is_available()
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        # use_safetensors: pickled weights are never read, not even from the hub
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=choose_dtype(), use_safetensors=True, **options)
    except _LOADING_ERRORS as error:
        raise UserError(
            f"{name}: can't be loaded as a language model ({first_line(error)}); "
            f"check the name and the network, or use a directory, a .gguf file, or one of {', '.join(PACKAGED)}"
        ) from None
    return model, tokenizer


def _require_room(name: str, config: Any, dtype: torch.dtype, *, on_gpu: bool) -> None:
    """Count the weights of a model that is not loaded yet; nothing is known of one that is kept quantised.

    Raises:
        UserError: they do not fit into the memory that is free; says what would.
    """
    from transformers import AutoModelForCausalLM

    if getattr(config, "quantization_config", None) is not None:
        return
    free = torch.cuda.mem_get_info()[0] if on_gpu else free_memory()
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())
    if free is not None and weights * dtype.itemsize > free:
        raise UserError(
            f"{name}: its {weights / 1e6:,.0f} million weights take {weights * dtype.itemsize / 1e9:.1f} GB as "
            f"{str(dtype).removeprefix('torch.')}, and {free / 1e9:.1f} GB of memory are free; take a model of at most "
            f"{free / dtype.itemsize / 1e6:,.0f} million, or a machine with more"
        )


def _converted(file: Path) -> tuple[str, str]:
    """Dequantise a GGUF file once, into safetensors in the cache; returns the folder and the file's hash."""
    with file.open("rb") as handle:
        if handle.read(4) != _GGUF_MAGIC:
            raise UserError(f"{file}: not a GGUF file (it does not begin with 'GGUF')")
    identity = hash_file(file)[:16]
    folder = cache_directory() / "models" / identity
    if not folder.exists():
        with progress_bar(f"converting {file.name}, once", 3) as advance:
            _convert(file, folder, advance)
    return str(folder), identity


def _convert(file: Path, folder: Path, advance: Advance) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        _require_room(str(file), config, torch.float32, on_gpu=False)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        advance()
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
        advance()
    except (*_LOADING_ERRORS, IndexError, OverflowError, MemoryError, struct.error) as error:
        raise UserError(f"{file}: a damaged or unsupported GGUF file ({first_line(error)})") from None
    # the weights are plain now, but transformers still calls them quantised and would not save them
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    try:
        with atomic_path(folder) as target:
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
    except UserError:
        if not folder.is_dir():  # else another process converted the same file meanwhile
            raise
    advance()


def _folder_identity(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: not a language model (no config.json in it); give a directory in transformers' format"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder}: holds no .safetensors weights; pickled weights are never read, convert them first")
    hashes = [hash_file(file) for file in weights]
    return hashes[0][:16] if len(hashes) == 1 else hash_json(hashes)


def _processor_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return set(line.partition(":")[2].split())
