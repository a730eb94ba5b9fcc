"""A language model of a few thousand weights and a log of a few users: real code, no waiting."""

from pathlib import Path

import polars as pl
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dllm2rec.core.seeding import numpy_generator
from dllm2rec.data import Dataset, PaperSplit, prepare, read_log
from dllm2rec.teachers.prompts import INSTRUCTION, RESPONSE

WORDS = ("red", "blue", "small", "large", "robot", "puzzle", "train", "doll")


@pytest.fixture(scope="session")
def titles() -> list[str]:
    pairs = [f"{first} {second}" for first in WORDS[:4] for second in WORDS[4:]]
    return [*pairs, "red robot"]  # one duplicate


@pytest.fixture(scope="session")
def tiny_llm(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*titles, INSTRUCTION, RESPONSE, "\n"] * 5, trainer)
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
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    path = tmp_path_factory.mktemp("llm") / "tiny"
    model.save_pretrained(path)
    fast.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory, titles: list[str]) -> Dataset:
    folder = tmp_path_factory.mktemp("log")
    generator = numpy_generator(0, "log")
    rows = [
        {"user_id": user, "item_id": int(item), "timestamp": 1000 * step + user}
        for user in range(60)
        for step, item in enumerate(generator.integers(len(titles), size=5))
    ]
    pl.DataFrame(rows).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": range(len(titles)), "title": titles}).write_csv(folder / "items.csv")
    log = read_log(folder / "log.csv", folder / "items.csv")
    return prepare(log, PaperSplit(), folder / "dataset", name="tiny")
