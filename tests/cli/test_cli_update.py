"""`dllm2rec update` and `teach --only-new`: a shop goes on, and so does its student."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import EVENTS, ITEMS, SMALL_TRAINING, USERS, call, item_titles, log_rows, refused, write_log

from dllm2rec.core.files import exclusive
from dllm2rec.data import Dataset, extend
from dllm2rec.knowledge import Knowledge

LATER = 1_000_000 + 1000 * EVENTS


def later_rows(start: int = LATER, items: int = ITEMS + 2) -> list[tuple[str, int, int]]:
    """The walk around the circle goes on, with two items more."""
    rng = np.random.default_rng(start)
    rows = []
    for user in range(USERS + 3):
        item = int(rng.integers(items))
        for event in range(5):
            item = (item + 1) % items
            rows.append((f"u{user}", item, start + 1000 * event + user))
    return rows


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    items = list(enumerate([*item_titles(), "Title 30 of the blue things", "Title 31 of the red things"]))
    return write_log(tmp_path_factory.mktemp("more"), list(later_rows()), items)


@pytest.fixture(scope="module")
def updated(runs: dict[str, Path], more: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("updated") / "run-2"
    outcome = call("update", runs["distilled"], *more, "--out", out, "--force", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["new_items"] == 2
    assert outcome.json["new_events"] == 5 * (USERS + 3)
    assert outcome.json["learned"] > 0
    assert outcome.json["replayed"] > 0
    return out


def test_an_updated_run_is_a_run(updated: Path, tmp_path: Path) -> None:
    assert call("evaluate", updated).code == 0
    assert call("export", updated, "--out", tmp_path / "bundle").code == 0
    answer = call("recommend", tmp_path / "bundle", "--history", "3,30", "--json")
    assert answer.code == 0, answer.err
    config = json.loads((updated / "config.json").read_text())
    assert config["continues"]["name"].startswith("transformer")


def test_only_what_is_new_is_labelled(updated: Path, taught: Path, dataset: Path) -> None:
    old, new = Knowledge.load(taught), Knowledge.load(updated / "knowledge")
    assert old.item_vectors is not None
    assert new.item_vectors is not None
    np.testing.assert_array_equal(new.item_vectors[:ITEMS], old.item_vectors)
    assert len(new.item_vectors) == ITEMS + 2
    rows = np.searchsorted(new.labels.example_id, old.labels.example_id)
    np.testing.assert_array_equal(new.labels.example_id[rows], old.labels.example_id)
    np.testing.assert_array_equal(new.labels.ranked_items[rows], old.labels.ranked_items)
    fresh = np.setdiff1d(new.labels.example_id, old.labels.example_id)
    assert len(fresh)
    train = Dataset.load(updated / "dataset").examples("train")
    assert np.isin(train.example_id, new.labels.example_id).all()


def test_started_again_it_says_the_same(updated: Path, runs: dict[str, Path], more: list[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in updated.rglob("*.safetensors")}
    outcome = call("update", runs["distilled"], *more, "--out", updated, "--force")
    assert outcome.code == 0, outcome.err
    assert {file: file.stat().st_mtime_ns for file in updated.rglob("*.safetensors")} == before


def test_a_run_goes_on_twice(updated: Path, tmp_path: Path) -> None:
    files = write_log(tmp_path, list(later_rows(LATER + 10_000)))[:2]
    outcome = call("update", updated, *files, "--out", tmp_path / "run-3", "--force", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["new_items"] == 0


def test_a_plain_run_needs_no_teacher(runs: dict[str, Path], more: list[str], tmp_path: Path) -> None:
    outcome = call("update", runs["plain"], *more, "--out", tmp_path / "run-2", "--force")
    assert outcome.code == 0, outcome.err
    assert not (tmp_path / "run-2" / "knowledge").exists()


def test_new_rows_that_repeat_or_lie_in_the_future_are_told(runs: dict[str, Path], tmp_path: Path) -> None:
    rows = later_rows(items=ITEMS)
    to_come = (*rows[-1][:2], 4_102_000_000)
    files = write_log(tmp_path, [*log_rows(), *rows, *rows[:7], to_come])  # whole again
    outcome = call("update", runs["plain"], *files, "--out", tmp_path / "run-2", "--force", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["new_events"] == len(rows) + 8
    assert "log.csv: 7 new rows repeat user, item and time of another: kept" in outcome.err
    assert "log.csv: 1 event lies in the future (the last on 2099-12-26)" in outcome.err


def test_all_since_the_cut_is_learned_also_where_validation_was_sampled(more: list[str], tmp_path: Path) -> None:
    files, learned = write_log(tmp_path, log_rows()), []
    for count in (None, 1):
        folder = tmp_path / str(count)
        sampled = ["--set", f"split.sample_validation={count}"]
        assert call("prepare", *files, *sampled, "--out", folder / "dataset").code == 0
        assert call("train", folder / "dataset", *SMALL_TRAINING, "--out", folder / "run").code == 0
        outcome = call("update", folder / "run", *more, "--out", folder / "run-2", "--force", "--json")
        learned.append(outcome.json["learned"])
    assert learned[0] == learned[1]


def test_what_the_old_split_left_out_is_not_new(dataset: Path, more: list[str], tmp_path: Path) -> None:
    assert call("train", dataset, *SMALL_TRAINING, "--protocol", "paper", "--out", tmp_path / "run").code == 0
    outcome = call("update", tmp_path / "run", *more, "--out", tmp_path / "run-2", "--force", "--json")
    assert outcome.code == 0, outcome.err
    old = Dataset.load(dataset)
    assert len(old.training_examples("positions")) > len(old.examples("train"))
    counts = old.manifest.counts
    assert 0 < outcome.json["learned"] <= 5 * (USERS + 3) + counts["validation"] + counts["test"]


def test_a_plain_run_takes_no_knowledge(runs: dict[str, Path], taught: Path, more: list[str], tmp_path: Path) -> None:
    refused(
        call("update", runs["plain"], *more, "--knowledge", taught, "--out", tmp_path / "run-2"),
        str(taught),
        "leave --knowledge out",
    )
    assert not (tmp_path / "run-2").exists()


def test_the_columns_of_newer_events_are_named(runs: dict[str, Path], more: list[str], tmp_path: Path) -> None:
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    rows = "".join(f"{user},{item},{time}000000\n" for user, item, time in later_rows())
    log.write_text(f"who,what,when\n{rows}")
    items.write_text("code,label\n" + Path(more[3]).read_text().partition("\n")[2])
    command = ["update", runs["plain"], "--interactions", log, "--items", items, "--out", tmp_path / "run-2", "--force"]
    for option, name in (
        ("--item-id-column", "code"),
        ("--title-column", "label"),
        ("--user-column", "who"),
        ("--item-column", "what"),
        ("--time-column", "when"),
        ("--time-unit", "ms"),
    ):
        refused(call(*command), f" {option}")
        command += [option, name]
    outcome = call(*command)
    assert outcome.code == 0, outcome.err
    assert Dataset.load(tmp_path / "run-2" / "dataset").manifest.num_items == ITEMS + 2


def test_a_worse_student_is_refused_and_force_takes_it(
    runs: dict[str, Path], more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dllm2rec.workflow.updating as module

    real = module.summary
    values = iter([0.5, 0.4] * 4)  # the old student first

    def worse(*arguments: object, **options: object) -> dict[str, float]:
        return {**real(*arguments, **options), "NDCG@20": next(values)}  # type: ignore[arg-type]

    monkeypatch.setattr(module, "summary", worse)
    command = ["update", runs["plain"], *more, "--out", tmp_path / "run-2"]
    refused(call(*command), "student has NDCG@20 .4000, the old one .5000 (p", "--force", code=3)
    monkeypatch.setattr(module, "paired_permutation_test", lambda *_, **__: 0.82)
    refused(call(*command), "(p = .820, so it may be chance)", code=3)
    refused(call("evaluate", tmp_path / "run-2"), "training has not ended")
    assert call(*command, "--force").code == 0
    assert call("evaluate", tmp_path / "run-2").code == 0
    assert call(*command).code == 0  # what was taken stays taken
    assert json.loads((tmp_path / "run-2" / "outcome.json").read_text())["forced"]


def test_what_was_refused_gives_way_to_other_settings(
    runs: dict[str, Path], more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dllm2rec.workflow.updating as module

    real, values = module.summary, iter([0.5, 0.4, 0.4, 0.5])

    def told(*arguments: object, **options: object) -> dict[str, float]:
        return {**real(*arguments, **options), "NDCG@20": next(values)}  # type: ignore[arg-type]

    command = ["update", runs["distilled"], *more, "--out", tmp_path / "run-2"]
    monkeypatch.setattr(module, "summary", told)
    refused(call(*command), "try other --set", code=3)
    labels = {file: file.stat().st_mtime_ns for file in (tmp_path / "run-2" / "knowledge").iterdir()}
    outcome = call(*command, "--set", "epochs=1")
    assert outcome.code == 0, outcome.err
    assert "was refused, gives way to this one (other settings)" in outcome.err
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run-2" / "knowledge").iterdir()} == labels
    assert len((tmp_path / "run-2" / "metrics.jsonl").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "run-2" / "config.json").read_text())["settings"]["training"]["epochs"] == 1
    assert json.loads((tmp_path / "run-2" / "update.json").read_text())["settings"]["epochs"] == 1
    refused(call(*command), "holds another update (other settings)")  # what is finished stays


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_was_refused_gives_way_to_other_events_that_are_sound(
    runs: dict[str, Path], more: list[str], taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dllm2rec.workflow.updating as module

    real, values = module.summary, iter([0.5, 0.4, 0.4, 0.5])

    def told(*arguments: object, **options: object) -> dict[str, float]:
        return {**real(*arguments, **options), "NDCG@20": next(values)}  # type: ignore[arg-type]

    monkeypatch.setattr(module, "summary", told)
    out, catalogue = tmp_path / "run-2", more[2:]
    refused(call("update", runs["distilled"], *more, "--out", out), "newer events", code=3)
    there = files_of(out)
    rows = [*later_rows(), *later_rows(LATER + 10_000)]
    newer, few = (write_log(tmp_path / str(len(some)), list(some))[:2] for some in (rows, rows[:2]))
    refused(call("update", runs["distilled"], *few, "--out", out), "collect more")
    refused(call("update", runs["distilled"], *newer, *catalogue, "--out", out, "--knowledge", taught), "knowledge of")
    assert files_of(out) == there
    command = ["update", runs["distilled"], *newer, *catalogue, "--out", out]
    outcome = call(*command, "--json")
    assert outcome.code == 0, outcome.err
    assert "run-2: the update there, which was refused, gives way to this one (other interactions)" in outcome.err
    assert outcome.json["new_events"] == len(rows)
    assert Dataset.load(out / "dataset").content_hash == Knowledge.load(out / "knowledge").manifest.dataset_hash
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    refused(call("update", runs["distilled"], *more, "--out", out), "holds another update (other interactions)")


def test_two_do_not_update_in_one_place(runs: dict[str, Path], more: list[str], tmp_path: Path) -> None:
    with exclusive(tmp_path / "run-2"):
        refused(call("update", runs["plain"], *more, "--out", tmp_path / "run-2"), "another dllm2rec is writing there")
    assert not (tmp_path / "run-2").exists()


@pytest.fixture(scope="module")
def elsewhere(dataset: Path, taught: Path, more: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the extended dataset and knowledge of it are."""
    folder = tmp_path_factory.mktemp("elsewhere")
    _, log, _, items = more
    extended = extend(Dataset.load(dataset), Path(log), Path(items), out=folder / "extended")
    outcome = call("teach", extended.path, "--only-new", taught, "--out", folder / "knowledge")
    assert outcome.code == 0, outcome.err
    return folder


def test_knowledge_taught_elsewhere(
    elsewhere: Path, dataset: Path, taught: Path, runs: dict[str, Path], more: list[str]
) -> None:
    run, knowledge = elsewhere / "run-2", elsewhere / "knowledge"
    command = ["update", runs["distilled"], *more, "--force"]
    outcome = call(*command, "--knowledge", knowledge, "--out", run)
    assert outcome.code == 0, outcome.err
    refused(call(*command, "--knowledge", taught, "--out", elsewhere / "run-3"), "knowledge of another dataset")
    other = elsewhere / "other"
    assert call("teach", elsewhere / "extended", "--teacher", "knn", "--out", other).code == 0
    refused(call(*command, "--knowledge", other, "--out", run), "holds another update (other knowledge)")
    refused(call(*command, "--out", run), "holds another update (other knowledge)")
    assert call(*command, "--knowledge", run / "knowledge", "--out", run).code == 0
    refused(
        call("teach", dataset, "--only-new", knowledge, "--out", elsewhere / "k"),
        "knowledge of another dataset",
        "goes on from (none)",
    )


def test_what_is_new_is_labelled_without_the_vectors_that_the_choice_read(
    elsewhere: Path, dataset: Path, taught: Path, tmp_path: Path
) -> None:
    vectors = shutil.copytree(taught, tmp_path / "vectors")
    chosen = ["--teacher", "knn", "--choose", "diverse", "--budget", 20, "--vectors", vectors, "--set", "depth=9"]
    assert call("teach", dataset, *chosen, "--out", tmp_path / "k").code == 0
    shutil.rmtree(vectors)
    only_new = ["teach", elsewhere / "extended", "--only-new"]
    first = call(*only_new, tmp_path / "k", "--out", tmp_path / "k-2", "--json")
    assert first.code == 0, first.err
    again = call(*only_new, tmp_path / "k", "--out", tmp_path / "k-2", "--json")
    assert again.json["hash"] == first.json["hash"]
    assert json.loads((tmp_path / "k-2" / "taught.json").read_text())["settings"]["vectors"] == str(vectors)


def test_what_is_refused(runs: dict[str, Path], more: list[str], tmp_path: Path) -> None:
    run, out = runs["plain"], ["--out", tmp_path / "run-2"]
    refused(call("update", run, "--interactions", tmp_path / "none.csv", *out), "none.csv: no such file")
    assert not (tmp_path / "run-2").exists()
    refused(call("update", run, *more, *out, "--set", "replai=2"), "replai", "replay")
    refused(call("update", tmp_path, *more, *out), "not a run directory")
    old = write_log(tmp_path / "old", list(later_rows(1000)))
    refused(call("update", run, *old[:2], *more[2:], "--out", tmp_path / "run-4"), "row 1", "older than the newest")
    refused(call("update", run, more[0], more[1], "--out", tmp_path / "run-5"), "is not in")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    refused(call("update", run, *more, "--out", tmp_path / "other"), "something else")


def test_an_input_at_fault_does_not_occupy_the_place(runs: dict[str, Path], more: list[str], tmp_path: Path) -> None:
    events, out = more[more.index("--interactions") + 1], tmp_path / "out"
    refused(call("update", runs["plain"], "--interactions", events, "--out", out), "--items")
    assert not out.exists()
    held_out = tmp_path / "held_out.csv"  # events that are all kept for validation and test
    held_out.write_text(f"user,item,time\nu0,1,{LATER}\nu1,2,{LATER + 1}\n")
    refused(call("update", runs["plain"], "--interactions", held_out, "--out", out), "collect more")
    assert not out.exists()
    done = call("update", runs["plain"], *more, "--force", "--out", out)
    assert done.code == 0, done.err


def test_of_answers_from_elsewhere_the_way_to_go_on_is_told(dataset: Path, more: list[str], tmp_path: Path) -> None:
    def answers(asked: Path, name: str) -> Path:
        assert call("ask", asked, "--out", tmp_path / f"{name}-questions.jsonl").code == 0
        rows = [json.loads(line) for line in (tmp_path / f"{name}-questions.jsonl").read_text().splitlines()]
        texts = [{"example_id": row["example_id"], "text": row["titles"][-1]} for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
        return tmp_path / f"{name}.jsonl"

    old, knowledge = answers(dataset, "old"), tmp_path / "knowledge"
    assert call("teach", dataset, "--import", old, "--out", tmp_path / "k").code == 0
    assert call("train", dataset, "--knowledge", tmp_path / "k", *SMALL_TRAINING, "--out", tmp_path / "run").code == 0
    update = ["update", tmp_path / "run", *more, "--force", "--out", tmp_path / "run-2"]
    there = tmp_path / "run-2" / "dataset"
    ask, teach = f"`dllm2rec ask {there} --out", f"`dllm2rec teach {there} --import"
    refused(call(*update), ask, teach, "--knowledge KNOWLEDGE")
    for file in (old, answers(there, "new")):
        outcome = call("teach", there, "--import", file, "--out", knowledge)
        assert outcome.code == 0, outcome.err
    outcome = call(*update, "--knowledge", knowledge)
    assert outcome.code == 0, outcome.err


def test_another_update_in_the_same_place_is_refused(
    updated: Path, runs: dict[str, Path], more: list[str], taught: Path, tmp_path: Path
) -> None:
    outcome = call("update", runs["distilled"], *more, "--out", updated, "--set", "replay=0.5")
    refused(outcome, "holds another update", "settings")
    outcome = call("update", runs["distilled"], *more, "--out", updated, "--knowledge", taught)
    refused(outcome, "holds another update (other knowledge)")


def test_a_copy_of_knowledge_is_whole_or_absent(
    elsewhere: Path, runs: dict[str, Path], more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dllm2rec.workflow.updating as module

    real = module.shutil.copytree

    def dies_at_the_end(*arguments: object, **options: object) -> None:
        real(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    command = ["update", runs["distilled"], *more, "--knowledge", elsewhere / "knowledge", "--out", tmp_path / "run-2"]
    with monkeypatch.context() as patched:
        patched.setattr(module.shutil, "copytree", dies_at_the_end)
        assert call(*command, "--force").code == 130
    assert not (tmp_path / "run-2" / "knowledge").exists()
    (tmp_path / "run-2" / ".result.json.x.tmp").mkdir()  # as a kill leaves it
    assert call(*command, "--force").code == 0
    assert not list((tmp_path / "run-2").glob(".*.tmp"))
