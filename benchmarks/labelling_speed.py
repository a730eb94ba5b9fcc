"""How many examples a teacher labels in a second: reading histories (retrieval) against writing titles (BIGRec).

    python benchmarks/labelling_speed.py DATASET --llm smollm2-135m

The same language model, not tuned (tuning changes no speed), on the same examples of the same dataset, one after the
other in one process. Retrieval reads whole users, so it is given whole users: all positions of those whom BIGRec
labels one position of. Loading, the catalogue's vectors and the fit of the heads are outside the clock for both.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dllm2rec.core.tensors import best_items
from dllm2rec.data import Dataset, Examples
from dllm2rec.teachers.bigrec import BigRecSettings, Labeller
from dllm2rec.teachers.choosing import random
from dllm2rec.teachers.contrastive import HeadSettings, first_heads
from dllm2rec.teachers.llm import LanguageModel, load_llm
from dllm2rec.teachers.prompts import Prompts
from dllm2rec.teachers.reading import Lines, read_sequences

DEPTH = 100
SEED = 0


def drawn(dataset: Dataset, count: int) -> Examples:
    """Return test examples, as a teacher with a limit chooses them."""
    test = dataset.examples("test")
    if count > len(test):
        raise SystemExit(f"{dataset.path}: has {len(test)} test examples, not {count}")
    return test.take(random(test, seed=SEED)[:count])


def writes(llm: LanguageModel, dataset: Dataset, vectors: np.ndarray, *, examples: int, title_tokens: int) -> float:
    """Return the labels a second of BIGRec."""
    settings = BigRecSettings(title_tokens=title_tokens, depth=min(DEPTH, dataset.num_items))
    prompts = Prompts(
        llm.tokenizer,
        dataset.titles,
        max_titles=settings.max_titles,
        title_tokens=title_tokens,
        prompt_tokens=settings.prompt_tokens,
    )
    labeller = Labeller(llm, dataset, prompts, vectors, settings)
    chosen = drawn(dataset, examples)
    start = time.perf_counter()
    labeller.label(chosen)
    return examples / (time.perf_counter() - start)


def reads(llm: LanguageModel, dataset: Dataset, vectors: np.ndarray, *, users: int, title_tokens: int) -> float:
    """Return the labels a second of a retrieval teacher."""
    lines = Lines(llm.tokenizer, dataset.titles, title_tokens=title_tokens)
    sequences = dataset.sequences()
    chosen = drawn(dataset, users).user
    rows = np.concatenate(
        [np.arange(sequences.offsets[user], sequences.offsets[user + 1] - 1) for user in np.unique(chosen)]
    )
    counts = dataset.train_counts("before-cut")
    heads = first_heads(
        states=torch.from_numpy(vectors), queries=vectors, counts=counts, settings=HeadSettings(), seed=SEED
    )
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        start = time.perf_counter()
        states = read_sequences(llm, lines, sequences, rows, max_titles=12, work=Path(folder))
        for part in np.array_split(states, max(1, len(states) // 1024)):
            scores = heads.queries(torch.from_numpy(part.astype(np.float32))) @ heads.embed().T + heads.bias()
            best_items(torch.log_softmax(scores, dim=1), min(DEPTH, dataset.num_items))
        return len(rows) / (time.perf_counter() - start)


def main() -> None:
    """Print both speeds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--llm", default="smollm2-135m")
    parser.add_argument("--examples", type=int, default=128, help="that BIGRec labels, and users that retrieval reads")
    parser.add_argument("--title-tokens", type=int, default=24)
    asked = parser.parse_args()
    dataset, llm = Dataset.load(asked.dataset), load_llm(asked.llm)
    size = llm.model.config.get_text_config().hidden_size
    vectors = np.random.default_rng(SEED).normal(size=(dataset.num_items, size)).astype(np.float32)
    written = writes(llm, dataset, vectors, examples=asked.examples, title_tokens=asked.title_tokens)
    read = reads(llm, dataset, vectors, users=asked.examples, title_tokens=asked.title_tokens)
    print(f"BIGRec, writing titles: {written:.1f} labels a second")
    print(f"retrieval, reading histories: {read:.1f} labels a second, {read / written:.1f} times as many")


if __name__ == "__main__":
    main()
