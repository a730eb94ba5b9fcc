import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels

NUM_ITEMS, DEPTH = 30, 4
MANIFEST = KnowledgeManifest(
    dataset_hash="abc",
    num_items=NUM_ITEMS,
    teacher="knn",
    depth=DEPTH,
)


@st.composite
def labels(draw: st.DrawFn) -> Labels:
    ids = draw(st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=12))
    generator = np.random.default_rng(draw(st.integers(0, 100)))
    size = len(ids)
    return Labels(
        example_id=np.array(ids, dtype=np.int64),
        ranked_items=np.argsort(generator.random((size, NUM_ITEMS)), axis=1)[:, :DEPTH].astype(np.int32),
        distances=np.sort(generator.normal(size=(size, DEPTH))).astype(np.float32),
        target_distance=generator.normal(size=size).astype(np.float32),
        generated_text=draw(st.lists(st.text(max_size=5), min_size=size, max_size=size)),
    )


@settings(max_examples=25, deadline=None)
@given(labels=labels(), data=st.data())
def test_however_labels_are_cut_and_whoever_writes_them_the_same_is_read(labels: Labels, data: st.DataObject) -> None:
    size = len(labels)
    order = np.array(data.draw(st.permutations(range(size))), dtype=np.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=5)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "k"
        writer = KnowledgeWriter(path, MANIFEST)
        for rows in np.split(order, cuts):
            if data.draw(st.booleans()):
                writer = KnowledgeWriter(path, MANIFEST)  # as after an interruption
            writer.append(labels.take(rows))
        read = Knowledge.load(path).labels
        np.testing.assert_array_equal(writer.labelled_ids(), np.sort(labels.example_id))
    expected = labels.take(np.argsort(labels.example_id))
    for field in ("example_id", "ranked_items", "distances", "target_distance"):
        np.testing.assert_array_equal(getattr(read, field), getattr(expected, field))
    assert read.generated_text == expected.generated_text


@settings(max_examples=25, deadline=None)
@given(labels=labels(), data=st.data())
def test_any_damage_to_one_shard_costs_that_shard_only(labels: Labels, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "k"
        writer = KnowledgeWriter(path, MANIFEST)
        parts = [labels.take(np.array([row])) for row in range(len(labels))]
        for part in parts:
            writer.append(part)
        files = sorted(path.glob("labels-*"))
        if not files:
            return
        victim = data.draw(st.sampled_from(files))
        if data.draw(st.booleans()):
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[: data.draw(st.integers(0, 20))])
        lost = int(victim.stem.removeprefix("labels-"))
        writer = KnowledgeWriter(path, MANIFEST)
        kept = np.delete(labels.example_id, lost)
        np.testing.assert_array_equal(Knowledge.load(path).labels.example_id, np.sort(kept))
        writer.append(parts[lost])
        assert len(Knowledge.load(path).labels) == len(labels)
