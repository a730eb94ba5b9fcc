import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, KnowledgeWriter, Labels
from dllm2rec.knowledge.shards import write_shard

MakeLabels = Callable[[Sequence[int]], Labels]

VECTORS = np.arange(18, dtype=np.float32).reshape(9, 2)


@pytest.fixture
def written(tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> Path:
    """Knowledge of three shards and vectors."""
    writer = KnowledgeWriter(tmp_path / "knowledge", manifest)
    writer.write_item_vectors(VECTORS)
    for ids in ([7, 3], [5], [1, 9, 2]):
        writer.append(make_labels(ids))
    return tmp_path / "knowledge"


def assert_same(left: Labels, right: Labels) -> None:
    for name in ("example_id", "ranked_items", "distances", "target_distance"):
        a, b = getattr(left, name), getattr(right, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert left.generated_text == right.generated_text


def test_reads_what_was_written_in_order_of_example(written: Path, make_labels: MakeLabels) -> None:
    knowledge = Knowledge.load(written)
    assert_same(knowledge.labels, make_labels([1, 2, 3, 5, 7, 9]))
    assert knowledge.labels.ranked_items.dtype == np.int32
    np.testing.assert_array_equal(knowledge.item_vectors, VECTORS)


def test_a_second_writer_goes_on(written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> None:
    writer = KnowledgeWriter(written, manifest)
    assert writer.labelled_ids().tolist() == [1, 2, 3, 5, 7, 9]
    assert writer.has_item_vectors()
    writer.append(make_labels([4]))
    assert_same(Knowledge.load(written).labels, make_labels([1, 2, 3, 4, 5, 7, 9]))


def test_another_manifest_is_refused_field_by_field(written: Path, manifest: KnowledgeManifest) -> None:
    other = manifest.model_copy(update={"seed": 3, "settings": {"beams": 1, "tokens": 128}})
    with pytest.raises(UserError) as caught:
        KnowledgeWriter(written, other)
    message = str(caught.value)
    assert "seed is 0, asked for 3" in message
    assert "settings.beams is 4, asked for 1" in message
    assert "settings.tokens is None, asked for 128" in message
    assert "model" not in message
    assert len(Knowledge.load(written).labels) == 6


def test_vectors_alone(tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> None:
    writer = KnowledgeWriter(tmp_path / "k", manifest.model_copy(update={"depth": 0}))
    assert not writer.has_item_vectors()
    writer.write_item_vectors(VECTORS)
    knowledge = Knowledge.load(tmp_path / "k")
    assert knowledge.labels.ranked_items.shape == (0, 0)
    with pytest.raises(UserError, match="shape"):
        writer.append(make_labels([1]))


def test_scores_are_not_taken_for_distances(
    tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    labels = make_labels(range(1, 13))
    writer = KnowledgeWriter(tmp_path / "k", manifest)
    with pytest.raises(UserError, match=r"k: the distances of these labels fall along their lists; .*the negative"):
        writer.append(replace(labels, distances=-labels.distances))
    twice = labels.ranked_items.copy()
    twice[1, 1] = twice[1, 0]
    with pytest.raises(UserError, match=r"k: 1 rows hold an item that is listed twice .*none of these labels was"):
        writer.append(replace(labels, ranked_items=twice))
    assert not list((tmp_path / "k").glob("labels*"))
    writer.append(labels)


def test_labels_alone(tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> None:
    writer = KnowledgeWriter(tmp_path / "k", manifest.model_copy(update={"vector_size": None}))
    writer.append(make_labels([1]))
    assert Knowledge.load(tmp_path / "k").item_vectors is None
    with pytest.raises(UserError, match="shape"):
        writer.write_item_vectors(VECTORS)


def test_no_labels_make_no_shard(tmp_path: Path, manifest: KnowledgeManifest) -> None:
    writer = KnowledgeWriter(tmp_path / "k", manifest)
    writer.append(Labels.empty(3))
    assert [file.name for file in (tmp_path / "k").iterdir()] == ["manifest.json"]


# What a kill can leave


def test_a_shard_without_sidecar_is_nothing(
    written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    write_shard(written, 3, make_labels([8]))
    (written / "labels-000003.json").unlink()
    assert 8 not in Knowledge.load(written).labels.example_id
    writer = KnowledgeWriter(written, manifest)
    assert not (written / "labels-000003.parquet").exists()
    assert 8 not in writer.labelled_ids()
    writer.append(make_labels([8]))
    assert 8 in Knowledge.load(written).labels.example_id


def test_leftovers_of_atomic_writes_go(tmp_path: Path, manifest: KnowledgeManifest) -> None:
    left = tmp_path / "k" / ".manifest.json.x1y2.tmp"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{")
    KnowledgeWriter(tmp_path / "k", manifest)
    assert not left.exists()


def test_kill_at_any_moment_loses_nothing_else(
    tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    """A child appends one example a shard; it is killed twice, and resumes each time."""
    script = tmp_path / "child.py"
    (tmp_path / "manifest.json").write_text(manifest.model_dump_json())
    script.write_text(_CHILD)
    generator = np.random.default_rng(0)
    before = 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it has begun
        time.sleep(0.02 + generator.random() * 0.05)
        os.kill(child.pid, signal.SIGKILL)
        said = [int(line) for line in child.communicate()[0].split()]
        kept = KnowledgeWriter(tmp_path / "k", manifest).labelled_ids()
        assert len(kept) >= before + max(0, len(said) - 1)  # a line may be cut
        before = len(kept)
    writer = KnowledgeWriter(tmp_path / "k", manifest)
    writer.write_item_vectors(VECTORS)
    writer.append(make_labels(sorted(set(range(2000)) - set(writer.labelled_ids().tolist()))))
    assert_same(Knowledge.load(tmp_path / "k").labels, make_labels(range(2000)))


_CHILD = """
import sys
from pathlib import Path
import numpy as np
from dllm2rec.knowledge import KnowledgeManifest, KnowledgeWriter, Labels
path = Path(sys.argv[1])
writer = KnowledgeWriter(path / "k", KnowledgeManifest.model_validate_json((path / "manifest.json").read_text()))
print("begun", flush=True)
for value in np.setdiff1d(np.arange(2000), writer.labelled_ids()):
    items = (value + np.arange(3) * 2) % 9
    writer.append(Labels(
        example_id=np.array([value]), ranked_items=items[None].astype(np.int32),
        distances=(items * 0.1 + value)[None].astype(np.float32),
        target_distance=np.array([value / 3], np.float32), generated_text=[f"title “{value}”"]))
    print(value, flush=True)
"""


# Damage: named when it is read, mended when it is taught again


def test_a_missing_shard_is_named_and_labelled_again(
    written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    (written / "labels-000001.parquet").unlink()
    (written / "labels-000001.json").unlink()
    with pytest.raises(UserError, match=r"labels-000001.*missing.*teach.*resumes"):
        Knowledge.load(written)
    writer = KnowledgeWriter(written, manifest)
    assert writer.labelled_ids().tolist() == [1, 2, 3, 7, 9]
    assert len(Knowledge.load(written).labels) == 5  # no gap is left, even if nothing is added
    writer.append(make_labels([5]))
    assert_same(Knowledge.load(written).labels, make_labels([1, 2, 3, 5, 7, 9]))


def test_a_missing_table_is_named(written: Path) -> None:
    (written / "labels-000002.parquet").unlink()
    with pytest.raises(UserError, match=r"labels-000002\.parquet: missing"):
        Knowledge.load(written)


def test_a_cut_shard_is_named_and_labelled_again(
    written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    file = written / "labels-000000.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"labels-000000\.parquet: damaged or cut"):
        Knowledge.load(written)
    writer = KnowledgeWriter(written, manifest)
    assert writer.labelled_ids().tolist() == [1, 2, 5, 9]
    writer.append(make_labels([3, 7]))
    assert_same(Knowledge.load(written).labels, make_labels([1, 2, 3, 5, 7, 9]))


def _rewrite_hash(path: Path, number: int, rows: int | None = None) -> None:
    """Make the sidecar agree with the table, so that only the later checks can object."""
    import hashlib

    sidecar = path / f"labels-{number:06d}.json"
    value = json.loads(sidecar.read_text())
    value["sha256"] = hashlib.sha256(sidecar.with_suffix(".parquet").read_bytes()).hexdigest()
    value["rows"] = value["rows"] if rows is None else rows
    sidecar.write_text(json.dumps(value))


def test_row_count_is_checked(written: Path) -> None:
    _rewrite_hash(written, 0, rows=5)
    with pytest.raises(UserError, match=r"labels-000000\.parquet: 2 rows, 5 recorded"):
        Knowledge.load(written)


def test_a_table_of_something_else(written: Path) -> None:
    (written / "labels-000001.parquet").write_bytes(b"not parquet")
    _rewrite_hash(written, 1)
    with pytest.raises(UserError, match=r"labels-000001\.parquet: not a shard of labels"):
        Knowledge.load(written)


@pytest.mark.parametrize("text", ["[]", "{", '{"rows": 1}'])
def test_a_spoilt_sidecar(written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels, text: str) -> None:
    (written / "labels-000001.json").write_text(text)
    with pytest.raises(UserError, match=r"labels-000001\.json"):
        Knowledge.load(written)
    KnowledgeWriter(written, manifest).append(make_labels([5]))
    assert len(Knowledge.load(written).labels) == 6


def test_an_example_in_two_shards(written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> None:
    write_shard(written, 3, make_labels([4, 5]))
    with pytest.raises(UserError, match="example 5 is labelled twice"):
        Knowledge.load(written)
    assert KnowledgeWriter(written, manifest).labelled_ids().tolist() == [1, 2, 3, 5, 7, 9]


def _spoilt(labels: Labels, **change: object) -> Labels:
    return Labels(**(vars(labels) | change))


NAN = np.float32("nan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranked_items": np.array([[0, 1, 9]], np.int32)}, r"an item outside 0\.\.8"),
        ({"ranked_items": np.array([[0, -1, 2]], np.int32)}, r"an item outside 0\.\.8"),
        ({"ranked_items": np.array([[2, 1, 2]], np.int32)}, "an item that is listed twice"),
        ({"ranked_items": np.array([[0, 1]], np.int32)}, r"ranked_items has shape \[1, 2\], not \[1, 3\]"),
        ({"distances": np.array([[0, NAN, 1]], np.float32)}, "a distance that is not finite"),
        ({"distances": np.array([[0, np.inf, 1]], np.float32)}, "a distance that is not finite"),
        ({"target_distance": np.array([NAN])}, "a target distance that is not finite"),
        ({"target_distance": np.zeros(2, np.float32)}, r"target_distance has shape \[2\], not \[1\]"),
        ({"generated_text": ["a", "b"]}, "2 generated texts for 1 examples"),
    ],
)
def test_unsound_labels_are_neither_written_nor_read(
    written: Path,
    manifest: KnowledgeManifest,
    make_labels: MakeLabels,
    change: dict[str, object],
    message: str,
) -> None:
    labels = _spoilt(make_labels([4]), **change)
    writer = KnowledgeWriter(written, manifest)
    before = sorted(file.name for file in written.iterdir())
    with pytest.raises(UserError, match=message):
        writer.append(labels)
    assert sorted(file.name for file in written.iterdir()) == before
    if len({len(labels), len(labels.target_distance), len(labels.generated_text)}) == 1:  # a table can hold it
        write_shard(written, 3, labels)
        with pytest.raises(UserError, match=f"labels-000003.parquet: .*{message}"):
            Knowledge.load(written)


def test_an_example_twice_is_not_written(written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels) -> None:
    writer = KnowledgeWriter(written, manifest)
    for ids in ([4, 4], [3]):
        with pytest.raises(UserError, match="labelled twice"):
            writer.append(make_labels(ids))
    assert len(Knowledge.load(written).labels) == 6


# Item vectors


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (VECTORS[:, :1], r"shape \[9, 1\], not \[9, 2\]"),
        (VECTORS[:8], r"shape \[8, 2\], not \[9, 2\]"),
        (np.where(VECTORS == 4, NAN, VECTORS), "1 of 9 item vectors are not finite .first: item 2."),
    ],
)
def test_unsound_vectors_are_not_written(
    written: Path, manifest: KnowledgeManifest, vectors: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        KnowledgeWriter(written, manifest).write_item_vectors(vectors)
    np.testing.assert_array_equal(Knowledge.load(written).item_vectors, VECTORS)


def test_vectors_of_another_size_or_not_finite_are_not_read(written: Path) -> None:
    from safetensors.numpy import save_file

    file = written / "item_vectors.safetensors"
    for vectors, message in ((VECTORS[:5], "shape"), (np.full((9, 2), np.inf, np.float32), "not finite")):
        save_file({"item_vectors": np.ascontiguousarray(vectors)}, file)
        with pytest.raises(UserError, match=rf"item_vectors\.safetensors: .*{message}"):
            Knowledge.load(written)
    save_file({"other": VECTORS}, file)
    with pytest.raises(UserError, match="not item vectors"):
        Knowledge.load(written)


def test_missing_or_cut_vectors_are_named_and_made_again(written: Path, manifest: KnowledgeManifest) -> None:
    file = written / "item_vectors.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"item_vectors\.safetensors: damaged"):
        Knowledge.load(written)
    assert not KnowledgeWriter(written, manifest).has_item_vectors()
    file.unlink()
    with pytest.raises(UserError, match=r"item_vectors\.safetensors: missing"):
        Knowledge.load(written)
    KnowledgeWriter(written, manifest).write_item_vectors(VECTORS)
    Knowledge.load(written)


# The directory


def test_not_a_knowledge_directory(tmp_path: Path, manifest: KnowledgeManifest) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="not a knowledge directory"):
            Knowledge.load(path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        KnowledgeWriter(tmp_path, manifest)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="a file stands"):
        KnowledgeWriter(tmp_path / "mine.txt", manifest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 7}, "format version 7"),
        ({"depth": -1}, "depth"),
        ({"surprise": 1}, "surprise"),
        ({"num_items": "many"}, "num_items"),
    ],
)
def test_a_spoilt_manifest(written: Path, change: dict[str, object], message: str) -> None:
    file = written / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        Knowledge.load(written)


def test_a_manifest_that_is_not_json(written: Path) -> None:
    (written / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a JSON file"):
        Knowledge.load(written)


def test_depth_beyond_the_catalogue(tmp_path: Path, manifest: KnowledgeManifest) -> None:
    with pytest.raises(UserError, match="depth 10 exceeds the catalogue of 9 items"):
        KnowledgeWriter(tmp_path / "k", manifest.model_copy(update={"depth": 10}))
    assert not (tmp_path / "k").exists()


def test_no_space_leaves_the_store_as_it_was(
    written: Path, manifest: KnowledgeManifest, make_labels: MakeLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = KnowledgeWriter(written, manifest)
    before = sorted(file.name for file in written.iterdir())

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="no space left"):
            writer.append(make_labels([4]))
    assert sorted(file.name for file in written.iterdir()) == before
    writer.append(make_labels([4]))
    assert len(Knowledge.load(written).labels) == 7


# The name of the content


def test_content_hash_ignores_the_cut_into_shards(
    written: Path, tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels
) -> None:
    writer = KnowledgeWriter(tmp_path / "other", manifest)
    writer.append(make_labels([9, 1, 2, 3, 7, 5]))
    writer.write_item_vectors(VECTORS)
    assert Knowledge.load(tmp_path / "other").content_hash == Knowledge.load(written).content_hash


@pytest.mark.parametrize(
    "change",
    [
        {"ranked_items": np.array([[8, 6, 1]], np.int32)},
        {"distances": np.array([[1, 2, 4]], np.float32)},
        {"target_distance": np.array([0.25], np.float32)},
        {"generated_text": ["else"]},
    ],
)
def test_content_hash_sees_every_part(
    tmp_path: Path, manifest: KnowledgeManifest, make_labels: MakeLabels, change: dict[str, object]
) -> None:
    hashes = set()
    for name, labels in (("a", make_labels([4])), ("b", _spoilt(make_labels([4]), **change))):
        for vectors in (VECTORS, VECTORS + 1):
            path = tmp_path / f"{name}{vectors[0, 0]}"
            writer = KnowledgeWriter(path, manifest)
            writer.write_item_vectors(vectors)
            writer.append(labels)
            hashes.add(Knowledge.load(path).content_hash)
    assert len(hashes) == 4
