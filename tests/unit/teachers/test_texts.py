"""Texts about items, users and examples: what they are written from, resuming, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset
from dllm2rec.knowledge.schema import DamagedError
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.knowledge.texts import KINDS
from dllm2rec.teachers import texts
from dllm2rec.teachers.texts import Counts, WritingSettings, tasks, teach_texts

SETTINGS = WritingSettings(tokens=6, batch_size=4, shard_size=4)


def teach(dataset: Dataset, llm: Path, out: Path, counts: Counts | None = None) -> Knowledge:
    return teach_texts(dataset, llm=str(llm), out=out, counts=counts or Counts(), settings=SETTINGS, seed=1)


@pytest.fixture(scope="module")
def knowledge(tiny_dataset: Dataset, tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    return teach(tiny_dataset, tiny_llm, tmp_path_factory.mktemp("texts") / "knowledge")


def test_every_kind_is_written_with_vectors(knowledge: Knowledge, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.examples("train")
    counts = {"item": tiny_dataset.num_items, "user": len(set(train.user.tolist())), "chain": -(-len(train) // 10)}
    assert {kind: len(found) for kind, found in knowledge.texts.items()} == counts
    assert knowledge.texts["user"].key.tolist() == sorted(set(train.user.tolist()))
    assert set(knowledge.texts["chain"].key.tolist()) <= set(train.example_id.tolist())
    for found in knowledge.texts.values():
        assert found.vectors.shape == (len(found), knowledge.manifest.vector_size)
        assert any(found.text)
    assert knowledge.item_vectors is not None


def test_no_target_of_any_example_of_a_user_is_in_a_prompt(tiny_dataset: Dataset) -> None:
    """What a prompt names was chosen before the first training target of its user, or before its own target."""
    wanted = tasks(tiny_dataset, Counts(chains=None), seed=0)
    parts = [tiny_dataset.examples(split) for split in ("train", "validation", "test")]
    sequences: dict[int, list[tuple[int, int]]] = {}
    for part in parts:
        for user, time, target in zip(part.user.tolist(), part.time.tolist(), part.target.tolist(), strict=True):
            sequences.setdefault(user, []).append((time, target))
    train = parts[0]
    for user, history in zip(wanted["user"].key.tolist(), wanted["user"].history, strict=True):
        rows = np.flatnonzero(train.user == user)
        first = rows[np.argmin(train.time[rows])]
        assert np.array_equal(history, train.history[first])
        events = sorted(sequences[user])
        assert events[0] == (train.time[first], train.target[first])  # all targets of the user come later
    by_id = dict(zip(train.example_id.tolist(), train.history, strict=True))
    for key, history in zip(wanted["chain"].key.tolist(), wanted["chain"].history, strict=True):
        assert np.array_equal(history, by_id[key])


def test_what_was_written_is_not_written_again(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, shards = tmp_path / "out", 0
    original = texts._Author.write

    def interrupted(self: texts._Author, task: texts.Task) -> texts.Texts:
        nonlocal shards
        shards += 1
        if shards == 4:
            raise KeyboardInterrupt
        return original(self, task)

    monkeypatch.setattr(texts._Author, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        teach(tiny_dataset, tiny_llm, out)
    (out / "texts-item-000001.parquet").write_bytes(b"cut")
    monkeypatch.setattr(texts._Author, "write", original)
    resumed = teach(tiny_dataset, tiny_llm, out)
    for kind in KINDS:
        assert resumed.texts[kind].key.tolist() == knowledge.texts[kind].key.tolist()
        assert resumed.texts[kind].text == knowledge.texts[kind].text
        np.testing.assert_allclose(resumed.texts[kind].vectors, knowledge.texts[kind].vectors, atol=1e-5)


def test_greater_counts_add_to_what_is_there(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    few = teach(tiny_dataset, tiny_llm, out, Counts(items=3, users=4, chains=0))
    assert {kind: len(found) for kind, found in few.texts.items()} == {"item": 3, "user": 4}
    top = np.argsort(-tiny_dataset.train_counts(), kind="stable")[:3]
    assert few.texts["item"].key.tolist() == sorted(top.tolist())
    more = teach(tiny_dataset, tiny_llm, out)
    assert more.texts["user"].key.tolist() == knowledge.texts["user"].key.tolist()
    assert more.content_hash != few.content_hash


def test_more_than_there_is_can_not_be_asked_for(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"items: 1,000 is more than the 17"):
        teach(tiny_dataset, tiny_llm, tmp_path / "out", Counts(items=1000))
    assert not (tmp_path / "out").exists()


def test_a_missing_or_damaged_file_is_named(knowledge: Knowledge, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(knowledge.path, copy)
    (copy / "texts-item-000000.parquet").unlink()
    with pytest.raises(DamagedError, match="texts-item-000000"):
        Knowledge.load(copy)
    (copy / "texts-item-000000.parquet").write_bytes(b"no table")
    with pytest.raises(DamagedError, match="texts-item-000000"):
        Knowledge.load(copy)
