"""A bundle recommends what PyTorch does, and says what is wrong with it."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from serving_helpers import ITEMS, trained

from dllm2rec.bundling import bundles, exporting
from dllm2rec.bundling.exporting import export
from dllm2rec.core.errors import RefusedError, UserError
from dllm2rec.core.files import hash_file
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge
from dllm2rec.serving import bundle as bundle_module
from dllm2rec.serving import recommender as serving
from dllm2rec.serving.bundle import FILES, INDEX, Bundle
from dllm2rec.serving.packing import Precision, pack, unpack
from dllm2rec.serving.recommender import Recommender
from dllm2rec.workflow.building import load_student
from dllm2rec.workflow.runs import Run


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(dataset, tmp_path_factory.mktemp("runs") / "run", kind="transformer", output="tied")


@pytest.fixture
def bundle(run: Run, tmp_path: Path) -> Path:
    return export(run, out=tmp_path / "bundle").path


def histories(dataset: Dataset) -> list[list[int]]:
    return [[1000 + int(item) for item in row if item != ITEMS] for row in dataset.examples("test").history]


@pytest.mark.parametrize("kind", ["transformer", "sasrec", "gru4rec", "caser"])
@pytest.mark.parametrize("output", ["tied", "separate"])
@pytest.mark.parametrize("text", [True, False], ids=["text", "ids"])
def test_it_scores_as_pytorch_does(  # noqa: PLR0917
    kind: str, output: str, text: bool, dataset: Dataset, knowledge: Knowledge, tmp_path: Path
) -> None:
    one = trained(dataset, tmp_path / "run", knowledge if text else None, kind=kind, output=output)
    done = export(one, out=tmp_path / "bundle")
    assert (done.check.examples, done.check.different) == (len(dataset.examples("test")), 0)
    assert done.bytes == sum(file.stat().st_size for file in done.path.iterdir())
    student = load_student(one, dataset)
    with torch.no_grad():
        expected = student(torch.from_numpy(dataset.examples("test").history.astype(np.int64))).numpy()
    recommender = Recommender.load(done.path)
    np.testing.assert_allclose(recommender.scores(histories(dataset)), expected, rtol=1e-4, atol=1e-5)
    found = recommender.recommend(histories(dataset), k=5)
    for row, recommendation in enumerate(found):
        best = np.argsort(-recommender.scores(histories(dataset)[row : row + 1])[0], kind="stable")[:5]
        assert recommendation.items == [1000 + item for item in best.tolist()]
        assert recommendation.titles == [f"title {item}" for item in best.tolist()]
        assert recommendation.scores == sorted(recommendation.scores, reverse=True)


def test_it_needs_nothing_but_itself(bundle: Path, dataset: Dataset) -> None:
    assert {file.name for file in bundle.iterdir()} == {*FILES, "bundle.json"}
    read = Bundle.load(bundle)
    assert read.output is read.input  # tied: stored once
    assert read.popularity.tolist() == dataset.train_counts("before-cut").tolist()
    assert read.manifest.dataset["content_hash"] == dataset.content_hash
    assert read.manifest.settings["student"]["kind"] == "transformer"
    program = (
        "import sys; from dllm2rec.serving.recommender import Recommender\n"
        f"print(Recommender.load({str(bundle)!r}).recommend([[1001, 1002]], k=3)[0].items)\n"
        "print({'torch', 'transformers', 'polars', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "set()"


def test_long_unknown_and_empty_histories(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    newest = [1003, 1004, 1005, 1006]
    long, short, mixed, unknown, empty = recommender.recommend(
        [[1001, 1002, *newest], newest, [7, *newest, "x"], [7, 8], []], k=4
    )
    assert long.items == short.items == mixed.items
    assert (mixed.unknown, mixed.fallback) == ([7, "x"], False)
    popularity = recommender.bundle.popularity
    most = [1000 + item for item in np.argsort(-popularity, kind="stable")[:4].tolist()]
    assert unknown.items == empty.items == most
    assert (unknown.unknown, unknown.fallback, empty.unknown, empty.fallback) == ([7, 8], True, [], True)
    assert recommender.recommend([]) == []


def test_many_histories_are_answered_as_each_alone(
    bundle: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = histories(dataset)
    whole = Recommender.load(bundle).recommend(asked, k=4)
    monkeypatch.setattr(serving, "HISTORIES_AT_ONCE", 3)
    parts = Recommender.load(bundle).recommend(asked, k=4)
    assert len(parts) == len(asked) > 6
    assert [one.items for one in parts] == [one.items for one in whole]


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(
    bundle: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = export(run, out=tmp_path / "other", precision="float16", max_loss=1.0).path
    version, read = Recommender.load(other).version, bundle_module.read_json

    def swaps(file: Path) -> Any:
        if file.name == "items.json" and other.exists():
            bundle.rename(tmp_path / "old")
            other.rename(bundle)
        return read(file)

    monkeypatch.setattr(bundle_module, "read_json", swaps)
    found = Recommender.load(bundle)
    assert (found.version, found.bundle.manifest.precision) == (version, "float16")


def test_a_link_that_points_elsewhere_while_it_is_read_changes_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, read = tmp_path / "place", bundle_module.read_json
    place.symlink_to(bundle)

    def breaks(file: Path) -> Any:
        place.unlink(missing_ok=True)
        place.symlink_to(tmp_path)  # no bundle
        return read(file)

    monkeypatch.setattr(bundle_module, "read_json", breaks)
    assert Recommender.load(place).version == Recommender.load(bundle).version


def test_a_file_that_may_not_be_read_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(file: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))

    monkeypatch.setattr(bundle_module, "load_file", forbidden)
    with pytest.raises(UserError, match=r"table\.safetensors: can't be read \(Permission denied\)"):
        Bundle.load(bundle)


def test_nobody_is_told_what_runs_here(bundle: Path, tmp_path: Path) -> None:
    home, program = (
        tmp_path / "home",
        f"""
from dllm2rec.serving.recommender import Recommender
Recommender.load({str(bundle)!r}).recommend([[1001, 1002]], k=3)
""",
    )
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "ORT"))}
    subprocess.run([sys.executable, "-c", program], env=environment | {"HOME": str(home)}, check=True)
    assert list(home.rglob("*")) == []  # onnxruntime would leave an id of the machine, and a queue


def test_ids_of_the_other_type_are_found(bundle: Path, tmp_path: Path) -> None:
    numbers = Recommender.load(bundle)
    shutil.copytree(bundle, tmp_path / "text")
    file = tmp_path / "text" / "items.json"
    file.write_text(json.dumps([[str(item), title] for item, title in json.loads(file.read_text())]))
    manifest = json.loads((tmp_path / "text" / "bundle.json").read_text())
    manifest["files"]["items.json"] = hash_file(file)
    (tmp_path / "text" / "bundle.json").write_text(json.dumps(manifest))
    texts = Recommender.load(tmp_path / "text")

    for recommender, other in ((numbers, str), (texts, int)):
        own = [recommender.bundle.ids[row] for row in (1, 2, 3)]
        history, strange = [other(item) for item in own], other(7)
        asked = recommender.recommend([[*history, strange]], k=3, candidates=history)[0]
        expected = recommender.recommend([own], k=3, candidates=own)[0]
        assert (asked.items, asked.scores, asked.fallback) == (expected.items, expected.scores, False)
        assert asked.unknown == [strange]
        assert recommender.similar(history[0]) == recommender.similar(own[0])
        assert (recommender.identify(history[0]), recommender.identify(strange)) == (own[0], None)
        assert recommender.recommend([np.array(own).astype(other)])[0].unknown == []
    assert numbers.knows("01001")
    assert not texts.knows("01001")
    assert not numbers.knows("1001.0")


def test_what_may_be_recommended(bundle: Path) -> None:
    recommender = Recommender.load(bundle)
    history = [1001, 1002, 1003]
    everything = recommender.recommend([history], k=10**9)[0].items
    assert sorted(everything) == list(range(1000, 1000 + ITEMS))
    left = recommender.recommend([history], k=10**9, exclude_seen=True)[0].items
    assert left == [item for item in everything if item not in history]
    some = [1020, 1002, 1011, 1020]
    chosen = recommender.recommend([history, [5]], k=9, candidates=some)
    assert chosen[0].items == [item for item in everything if item in some]
    assert sorted(chosen[1].items) == [1002, 1011, 1020]
    rest = recommender.recommend([history], k=9, candidates=some, exclude_seen=True)[0].items
    assert rest == [item for item in everything if item in {1011, 1020}]
    assert recommender.recommend([[1002]], candidates=[1002], exclude_seen=True)[0].items == []


@pytest.mark.parametrize("k", [0, -1])
def test_no_items_are_refused(bundle: Path, k: int) -> None:
    with pytest.raises(UserError, match=f"k must be at least 1, not {k}"):
        Recommender.load(bundle).recommend([[1001]], k=k)


def test_candidates_that_are_not_there_are_refused(bundle: Path) -> None:
    with pytest.raises(UserError, match=r"candidate 'x': not in the catalogue \(1 of 2"):
        Recommender.load(bundle).recommend([[1001]], candidates=[1001, "x"])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "altered", "gone"])
def test_damage_names_the_file(bundle: Path, name: str, damage: str) -> None:
    file = bundle / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-7] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=rf"{name}: (missing|cut or altered)"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"num_items": 0}, "num_items"),
        ({"files": {}}, "names no hash of items.json"),
        ({"magic": 1}, "magic: not known"),
        ({"dim": None}, "dim: None is not a count"),
        ({"precision": "int4"}, "precision: 'int4' is not float32, float16 or int8"),
        ({"text": {"model": None, "weight": 1.0}}, r"text\.probes: missing"),
        ({"text": {"model": 3, "weight": 1.0, "probes": []}}, r"text\.model: 3 is not a name"),
    ],
)
def test_manifests_of_other_versions_or_damaged(bundle: Path, change: dict[str, object], words: str) -> None:
    file = bundle / "bundle.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UserError, match=words):
        Bundle.load(bundle)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a bundle"):
        Bundle.load(tmp_path)


def test_a_table_that_is_no_table(bundle: Path) -> None:
    (bundle / "table.safetensors").write_bytes(b"not safetensors")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["files"]["table.safetensors"] = hash_file(bundle / "table.safetensors")
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"table\.safetensors: damaged"):
        Bundle.load(bundle)


def test_a_bundle_that_would_recommend_something_else_is_not_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = exporting.pack

    def wrong(vectors: np.ndarray, *arguments: Any) -> dict[str, np.ndarray]:
        return pack(np.ascontiguousarray(vectors[::-1]), *arguments)

    monkeypatch.setattr(exporting, "pack", wrong)
    with pytest.raises(UserError, match="nothing was exported"):
        export(run, out=tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("precision", "shrinks"), [("float16", 2), ("int8", 3)])
@pytest.mark.parametrize("output", ["tied", "separate"])
def test_smaller_precisions(
    precision: Precision, shrinks: float, output: str, dataset: Dataset, tmp_path: Path
) -> None:
    one = trained(dataset, tmp_path / "run", kind="gru4rec", output=output, offset_std=1.0)
    whole = export(one, out=tmp_path / "whole")
    done = export(one, out=tmp_path / "small", precision=precision, max_loss=0.5)
    bundles = Bundle.load(whole.path), Bundle.load(done.path)
    assert bundles[1].manifest.precision == precision
    step = {"float16": 1e-3, "int8": 0.5 / 127}[precision]
    for first, second in zip(*((one.input, one.output) for one in bundles), strict=True):
        assert second.dtype == np.float32
        assert np.all(np.abs(first - second) <= 1.01 * step * np.abs(first).max(axis=1, keepdims=True) + 1e-7)
    assert done.check.overlap > 0.7
    together, histories = Recommender.load(done.path), [list(range(at, at + 3)) for at in range(1, 10)]
    for history, found in zip(histories, together.recommend(histories), strict=True):  # whoever else asks
        (alone,) = together.recommend([history])
        np.testing.assert_allclose(alone.scores, found.scores, rtol=1e-4, atol=1e-5)
    tables = [load_file(one.path / "table.safetensors") for one in bundles]
    sizes = [sum(part.nbytes for name, part in table.items() if name.startswith("input")) for table in tables]
    assert sizes[0] > (shrinks - 1) * sizes[1]


def test_what_loses_too_much_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = bundles.Check(examples=9, different=9, overlap=0.4, ndcg=0.02, source_ndcg=0.04)
    monkeypatch.setattr(exporting, "compare_lists", lambda *_: check)
    with pytest.raises(RefusedError, match=r"as int8 it loses 50.0% .* \(40.0% of the lists.*--max-loss 0.501"):
        export(run, out=tmp_path / "bundle", precision="int8")
    assert list(tmp_path.iterdir()) == []
    export(run, out=tmp_path / "bundle", precision="int8", max_loss=0.5)


def test_zeros_and_large_values() -> None:
    vectors = np.array([[0, 0], [1e-3, -1e-3], [7e4, 1]], np.float32)
    np.testing.assert_allclose(unpack(pack(vectors, "x", "int8"), "x"), vectors, atol=7e4 / 254)
    np.testing.assert_array_equal(unpack(pack(vectors[:1], "x", "int8"), "x"), vectors[:1])
    with pytest.raises(UserError, match="too large for half precision; export with --precision float32"):
        pack(vectors, "x", "float16")


@pytest.mark.parametrize("output", ["tied", "separate"])
def test_an_approximate_index_finds_what_is_best(output: str, dataset: Dataset, tmp_path: Path) -> None:
    one = trained(dataset, tmp_path / "run", kind="sasrec", output=output)
    done = export(one, out=tmp_path / "bundle", index=True)
    assert done.recall is not None
    assert done.recall > 0.95
    exact = Recommender.load(done.path)
    quick = Recommender.load(done.path, approximate=True)
    given = [[1001, 1002, 1003], [1004]]
    for options in ({}, {"exclude_seen": True}, {"candidates": [1001, 1005, 1009]}):
        pairs = zip(exact.recommend(given, k=4, **options), quick.recommend(given, k=4, **options), strict=True)
        for first, second in pairs:
            assert first.items == second.items
            np.testing.assert_allclose(first.scores, second.scores, rtol=1e-5)
    assert quick.recommend([[5]], k=3)[0].fallback


def test_an_index_that_is_not_there_or_damaged(bundle: Path, run: Run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no approximate index; export it with --index"):
        Recommender.load(bundle, approximate=True)
    (bundle / INDEX).write_bytes(b"nothing")
    bundles.write_manifest(bundle, Bundle.load(bundle).manifest)
    with pytest.raises(UserError, match=r"index\.usearch: damaged"):
        Recommender.load(bundle, approximate=True)


def test_an_encoder_that_this_machine_can_not_run(bundle: Path) -> None:
    manifest = Bundle.load(bundle).manifest
    (bundle / "encoder.onnx").write_bytes(b"nothing")
    bundles.write_manifest(bundle, manifest)
    with pytest.raises(UserError, match=r"encoder\.onnx: this machine's onnxruntime can't run it"):
        Recommender.load(bundle)


def test_what_is_there_stays(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export(run, out=tmp_path / "bundle")


@pytest.mark.parametrize(("again", "ever"), [(-3.0, False), (2.0, False), (-3.0, True)])
def test_items_of_the_history_get_what_validation_says(
    again: float, ever: bool, dataset: Dataset, tmp_path: Path
) -> None:
    one = trained(dataset, tmp_path / "run", output="tied")
    result = one.finished()
    one.write_result(result.model_copy(update={"fit": result.fit.model_copy(update={"again": again, "ever": ever})}))
    done = export(one, out=tmp_path / "bundle", index=True)
    assert done.check.different == 0
    recommender, quick = Recommender.load(done.path), Recommender.load(done.path, approximate=True)
    known = dataset.examples("test").known()
    assert known.shape[1] > dataset.manifest.history
    given = [[1000 + int(item) for item in row if item != ITEMS] for row in known]
    with torch.no_grad():
        expected = load_student(one, dataset)(torch.from_numpy(known.astype(np.int64))).numpy()
    np.testing.assert_allclose(recommender.scores(given), expected, rtol=1e-4, atol=1e-5)
    for options in ({}, {"candidates": [1000 + item for item in range(0, ITEMS, 2)]}, {"exclude_seen": True}):
        for row, (exact, near) in enumerate(
            zip(recommender.recommend(given, k=6, **options), quick.recommend(given, k=6, **options), strict=True)
        ):
            assert exact.items == near.items
            own = [expected[row, item - 1000] for item in exact.items]
            np.testing.assert_allclose(exact.scores, own, rtol=1e-4, atol=1e-5)
            assert not options.get("exclude_seen") or not set(exact.items) & set(given[row])
    twice = recommender.recommend([[1001, 1001, 1003]], k=ITEMS)[0]
    once = recommender.scores([[1001, 1001, 1003]])[0]
    assert twice.scores == pytest.approx(np.sort(once)[::-1].tolist(), rel=1e-5)
