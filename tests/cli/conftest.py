"""Fixtures that the tests of the command line share: a small dataset, a language model of a few thousand weights."""

import shutil
from pathlib import Path

import pytest
from cli_helpers import SMALL_TEACHER, SMALL_TRAINING, call, item_titles, log_rows, write_log
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

INSTRUCTIONS = "### Instruction: ### Input: ### Response: Given the titles of the items a user chose, oldest first"


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset directory."""
    folder = tmp_path_factory.mktemp("dataset")
    out = folder / "dataset"
    outcome = call("prepare", *write_log(folder, list(log_rows())), "--set", "split.history=5", "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model that has learned nothing, in transformers' format."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*item_titles(), INSTRUCTIONS, "\n"] * 5, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        eos_token_id=fast.eos_token_id,
        bos_token_id=None,
        pad_token_id=fast.pad_token_id,
        initializer_range=0.2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    path = tmp_path_factory.mktemp("llm") / "tiny"
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def taught(dataset: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A knowledge directory: all training, some validation and some test examples are labelled."""
    out = tmp_path_factory.mktemp("knowledge") / "knowledge"
    limits = ["--limit", "validation=10", "--limit", "test=12"]
    outcome = call("teach", dataset, "--llm", llm, *limits, *SMALL_TEACHER, "--out", out)
    assert outcome.code == 0, outcome.err
    return out


@pytest.fixture
def knowledge(taught: Path, tmp_path: Path) -> Path:
    """A copy of the knowledge that a test may damage."""
    return Path(shutil.copytree(taught, tmp_path / "knowledge"))


@pytest.fixture(scope="session")
def runs(dataset: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain and a distilled run."""
    folder = tmp_path_factory.mktemp("runs")
    plain, distilled = folder / "plain", folder / "distilled"
    assert call("train", dataset, *SMALL_TRAINING, "--out", plain).code == 0
    outcome = call("train", dataset, "--knowledge", taught, *SMALL_TRAINING, "--out", distilled)
    assert outcome.code == 0, outcome.err
    return {"plain": plain, "distilled": distilled}
