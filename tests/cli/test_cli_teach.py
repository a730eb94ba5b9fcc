"""`dllm2rec teach`: good and bad teachers."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL_PAPER, SMALL_TEACHER, call, refused
from safetensors.numpy import load_file, save_file

from dllm2rec.core.files import exclusive
from dllm2rec.data import Dataset
from dllm2rec.knowledge import Knowledge
from dllm2rec.teachers.choosing import order

HERE = Path(__file__).parent  # a directory that no verb made


def test_the_same_again_is_there_at_once_and_more_labels_are_added(dataset: Path, llm: Path, knowledge: Path) -> None:
    limits = ["--limit", "validation=10", "--limit", "test=12"]
    again = call("teach", dataset, "--llm", llm, *limits, *SMALL_TEACHER, "--out", knowledge, "--json")
    assert again.json["labels"]["test"] == 12
    more = call(
        "teach", dataset, "--llm", llm, "--limit", "validation=10", *SMALL_TEACHER, "--out", knowledge, "--json"
    )
    assert more.json["labels"]["test"] > 12
    assert more.json["labels"]["train"] == again.json["labels"]["train"] > 100


def test_other_weights_in_the_same_directory_are_another_teacher(dataset: Path, llm: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(llm, tmp_path / "model"))
    asked = ["teach", dataset, "--llm", model, "--limit", "2", *SMALL_TEACHER, "--out", tmp_path / "k", "--json"]
    first = call(*asked).json
    assert call(*asked).json["hash"] == first["hash"]
    weights = load_file(model / "model.safetensors")
    save_file({name: 1.5 * values for name, values in weights.items()}, model / "model.safetensors")
    refused(call(*asked), "another")


def test_a_plain_limit_and_chosen_splits(dataset: Path, tmp_path: Path) -> None:
    outcome = call(
        *("teach", dataset, "--teacher", "knn", "--split", "train", "--split", "test", "--limit", 20),
        *("--out", tmp_path / "k", "--json"),
    )
    assert outcome.json["labels"] == {"train": 20, "validation": 0, "test": 20}


def test_a_plain_limit_is_at_most_what_the_teacher_could_label(dataset: Path, llm: Path, tmp_path: Path) -> None:
    from dllm2rec.data import Dataset

    opened = Dataset.load(dataset)
    own, early = (len(opened.training_examples(train_on)) for train_on in ("examples", "before-cut"))
    assert own < early
    knn = ["teach", dataset, "--teacher", "knn", "--split", "train", "--json"]
    assert call(*knn, "--limit", own + 1, "--out", tmp_path / "k").json["labels"]["train"] == own + 1
    assert call(*knn, "--limit", early + 1, "--out", tmp_path / "all").json["labels"]["train"] == early
    reader = ["teach", dataset, "--teacher", "retrieval", "--llm", llm, "--limit", early, "--out", tmp_path / "r"]
    reader += ["--set", "tuning.sequences=4", "--set", "heads.size=8", "--set", "depth=5", "--json"]
    found = call(*reader).json["labels"]
    assert own < found["train"] < early
    assert (found["validation"], found["test"]) == (
        opened.manifest.counts["validation"],
        opened.manifest.counts["test"],
    )


def test_a_language_model_that_reads(dataset: Path, llm: Path, tmp_path: Path) -> None:
    asked = (
        *("teach", dataset, "--teacher", "retrieval", "--llm", llm, "--limit", "validation=10", "--limit", "test=12"),
        *(
            "--set",
            "tuning.sequences=4",
            "--set",
            "heads.size=8",
            "--set",
            "depth=5",
            "--out",
            tmp_path / "k",
            "--json",
        ),
    )
    found = call(*asked).json
    assert found["teacher"] == "retrieval"
    assert (found["labels"]["validation"], found["labels"]["test"], found["vector_size"]) == (10, 12, 8)
    assert found["labels"]["train"] > 100
    assert call(*asked).json["hash"] == found["hash"]
    refused(call("teach", dataset, "--only-new", tmp_path / "k", "--out", tmp_path / "new"), "goes on from")


def test_ease_labels_out_of_fold_and_students_learn_from_it(dataset: Path, tmp_path: Path) -> None:
    counts = json.loads((dataset / "dataset.json").read_text())["counts"]
    first = call("teach", dataset, "--teacher", "ease", "--set", "folds=2", "--out", tmp_path / "k", "--json")
    assert (first.json["teacher"], first.json["depth"]) == ("ease", 30)
    assert {split: first.json["labels"][split] for split in ("validation", "test")} == {
        split: counts[split] for split in ("validation", "test")
    }
    assert first.json["settings"]["folds"] == 2
    assert first.json["settings"]["max_items"] == 20_000
    whole = call("teach", dataset, "--teacher", "ease", "--set", "folds=1", "--out", tmp_path / "w", "--json")
    assert whole.json["hash"] != first.json["hash"]
    taught = ("--method", "dllm2rec", "--set", "method.embedding=false", "--set", "training.epochs=1")
    outcome = call("train", dataset, "--knowledge", tmp_path / "k", *taught, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome.err


def test_ease_refuses_a_catalogue_beyond_its_bound(dataset: Path, tmp_path: Path) -> None:
    asked = ("--teacher", "ease", "--set", "reference.max_items=7", "--out", tmp_path / "k")
    refused(call("teach", dataset, *asked), "30 items", "GB", "max_items = 7", "--set reference.max_items=30", "knn")
    assert not (tmp_path / "k").exists()


def labelled(path: Path) -> set[int]:
    return set(Knowledge.load(path).labels.example_id.tolist())


@pytest.mark.parametrize("rule", ["random", "uncertain", "disagreement", "diverse"])
def test_a_budget_is_spent_by_a_rule_and_a_greater_one_adds(rule: str, dataset: Path, tmp_path: Path) -> None:
    teach = ["teach", dataset, "--teacher", "knn", "--limit", 5, "--choose", rule, "--out", tmp_path / "k", "--json"]
    assert call(*teach, "--budget", 8).json["labels"] == {"train": 8, "validation": 5, "test": 5}
    few = labelled(tmp_path / "k")
    assert call(*teach, "--budget", "10%").json["labels"]["train"] > 8
    assert few < labelled(tmp_path / "k")
    told = call(*teach, "--budget", "20%", "--choose", "oldest")
    assert f"were chosen by '{rule}', to which those that 'oldest' chooses are added" in told.err


def test_labels_that_are_added_leave_what_was_trained_on_the_others(dataset: Path, tmp_path: Path) -> None:
    known, run = tmp_path / "k", tmp_path / "run"
    teach = ("teach", dataset, "--teacher", "text", "--out", known)
    assert call(*teach, "--budget", "80%").code == 0
    done = call("train", dataset, *SMALL_PAPER, "--knowledge", known, "--method", "dllm2rec", "--out", run)
    assert done.code == 0, done.err
    assert call(*teach).code == 0
    done = call("evaluate", run, "--json")
    assert done.code == 0, done.err
    vectors = known / "item_vectors.safetensors"
    vectors.write_bytes(vectors.read_bytes()[:-4] + b"\0\0\0\0")
    refused(call("evaluate", run, "--split", "validation"), "is not the knowledge that")


def test_a_language_model_labels_what_is_chosen_with_vectors_that_are_named(
    dataset: Path, llm: Path, taught: Path, tmp_path: Path
) -> None:
    teach = ["teach", dataset, "--llm", llm, *SMALL_TEACHER, "--split", "train", "--choose", "disagreement"]
    named = call(*teach, "--vectors", taught, "--budget", 6, "--out", tmp_path / "k", "--json")
    assert named.json["labels"] == {"train": 6, "validation": 0, "test": 0}
    few = labelled(tmp_path / "k")
    assert call(*teach, "--vectors", taught, "--limit", "train=12", "--out", tmp_path / "k").code == 0
    assert few < labelled(tmp_path / "k")
    opened = Dataset.load(dataset)
    pool = opened.examples("train")
    vectors = Knowledge.load(taught).item_vectors
    rows = order("disagreement", opened, pool, seed=0, item_vectors=vectors)[:12]
    assert labelled(tmp_path / "k") == set(pool.example_id[rows].tolist())


def test_vectors_are_known_by_their_content(dataset: Path, knowledge: Path, tmp_path: Path) -> None:
    out = tmp_path / "k"
    teach = ["teach", dataset, "--teacher", "text", "--limit", 20, "--out", out, "--json", "--vectors"]
    first = call(*teach, knowledge)
    assert first.code == 0, first.err
    done = (out / "taught.json").stat().st_mtime_ns
    moved = knowledge.rename(tmp_path / "moved")
    assert call(*teach, moved).json["hash"] == first.json["hash"]
    assert (out / "taught.json").stat().st_mtime_ns == done
    vectors = load_file(moved / "item_vectors.safetensors")["item_vectors"]
    save_file({"item_vectors": vectors[::-1].copy()}, moved / "item_vectors.safetensors")
    refused(call(*teach, moved), f"{out}: holds other knowledge", "revision")


def test_a_blend_says_how_far_it_reads_text(dataset: Path, knowledge: Path, tmp_path: Path) -> None:
    same = np.ones((30, 4), np.float32)  # titles that tell nothing: validation chooses 0
    manifest = json.loads((knowledge / "manifest.json").read_text())
    (knowledge / "manifest.json").write_text(json.dumps(manifest | {"vector_size": 4}))
    save_file({"item_vectors": same}, knowledge / "item_vectors.safetensors")
    blend = ["teach", dataset, "--teacher", "blend", "--vectors", knowledge, "--limit", 5]
    told = call(*blend, "--out", tmp_path / "none")
    nothing = "Text has weight 0, so these labels are item-kNN's alone"
    assert nothing in " ".join(told.out.split()), told
    assert "titles told nothing more than counting" in " ".join(told.out.split())
    assert call(*blend, "--out", tmp_path / "none", "--json").json["text_weight"] == 0
    page = call("doctor", tmp_path / "none", "--dataset", dataset, "--json").json
    assert any(nothing in finding["text"] for finding in page["findings"])
    some = [*blend, "--set", "reference.text_weight=.25", "--out", tmp_path / "some"]
    assert "Text has weight 0.25 beside item-kNN" in " ".join(call(*some).out.split())
    assert call(*some, "--json").json["text_weight"] == 0.25
    other = call("teach", dataset, "--teacher", "knn", "--limit", 5, "--out", tmp_path / "knn", "--json")
    assert other.json["text_weight"] is None


def test_who_reads_whole_users_takes_a_budget_and_no_choice(dataset: Path, llm: Path, tmp_path: Path) -> None:
    asked = ["teach", dataset, "--teacher", "retrieval", "--llm", llm, "--limit", 10, "--out", tmp_path / "k", "--json"]
    asked += ["--set", "tuning.sequences=4", "--set", "heads.size=8", "--set", "depth=5"]
    for rule in ("uncertain", "oldest"):
        refused(call(*asked, "--budget", 50, "--choose", rule), "choose", rule, "reads whole users", "saves nothing")
    refused(call(*asked, "--budget", 999999), "--budget 999999", "give a count from 1 to")
    refused(call(*asked, "--budget", 50, "--limit", "train=4"), "--budget 50 and train=4", "give one of them")
    assert not (tmp_path / "k").exists()
    found = call(*asked, "--budget", 50, "--choose", "random")
    assert found.json["labels"] == {"train": 50, "validation": 10, "test": 10}


def test_a_choice_of_nothing(dataset: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "k"]
    for teacher, *needed in (("encoder",), ("texts",), ("merged", "--from", HERE, "--from", HERE)):
        asked = ("teach", dataset, "--teacher", teacher, *needed, *out)
        refused(call(*asked, "--budget", 5), f"{teacher} labels no examples")
        refused(call(*asked, "--choose", "diverse"), "--choose", f"not for teacher {teacher}", "bigrec, retrieval")
        refused(call(*asked, "--limit", 5), f"not for teacher {teacher}")
        refused(call(*asked, "--split", "test"), f"not for teacher {teacher}")
    for option in ("--import", "--only-new"):
        for said in (
            *(("--budget", 5), ("--limit", 5), ("--seed", 0), ("--llm", "x"), ("--set", "a=b"), ("--from", HERE)),
            *(("--teacher", "bigrec"), ("--model", "x"), ("--vectors", HERE), ("--split", "test")),
        ):
            refused(call("teach", dataset, option, tmp_path, *said, *out), said[0], "leave it out", option)
    both = ("--import", tmp_path, "--only-new", tmp_path)
    refused(call("teach", dataset, *both, *out), "--import", "no effect with --only-new")
    refused(call("teach", dataset, "--teacher", "knn", "--split", "test", "--budget", 5, *out), "--budget", "--split")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["knn", "--model", "minilm"], ["--model", "not for teacher knn", "encoder, texts, text, blend"]),
        (["knn", "--set", "words=false"], ["--set words: not for teacher knn, it is for encoder, text, blend"]),
        (["blend", "--vectors", HERE, "--set", "words=false"], ["--set words and --vectors", "give one of them"]),
        (["popularity", "--set", "model=minilm"], ["--model", "not for teacher popularity"]),
        (["bigrec", "--model", "minilm"], ["--model", "not for teacher bigrec", "encoder, texts, text, blend"]),
        (["knn", "--llm", "smollm2-135m"], ["--llm", "not for teacher knn", "bigrec, retrieval, texts"]),
        (["ease", "--seed", 0], ["--seed", "not for teacher ease", "bigrec, retrieval, texts"]),
        (["blend", "--from", HERE], ["--from", "not for teacher blend", "merged"]),
        (["encoder", "--vectors", HERE], ["--vectors", "not for teacher encoder", "bigrec, popularity, knn"]),
        (["merged", "--vectors", HERE], ["--vectors", "not for teacher merged"]),
        (["knn", "--vectors", HERE], ["--vectors", "teacher knn", "--choose oldest", "disagreement or diverse"]),
        (["bigrec", "--vectors", HERE, "--choose", "uncertain"], ["--vectors", "teacher bigrec", "--choose uncertain"]),
        (["text", "--vectors", HERE, "--model", "minilm"], ["--model and --vectors", "give one of them"]),
        (["knn", "--split", "test", "--choose", "diverse"], ["--choose diverse", "none is to be labelled"]),
        (["knn", "--limit", 0], ["limits of 0 leave nothing to label", "--teacher encoder"]),
        (["knn", "--limit", "train=0", "--choose", "diverse"], ["--choose diverse", "none is to be labelled"]),
        (["knn", "--limit", 3, "--limit", 4], ["--limit 3 and --limit 4", "give one of them"]),
        (["knn", "--limit", "train=3", "--limit", "train=4"], ["--limit train=3 and --limit train=4"]),
        (["knn", "--limit", "train=3", "--set", "limits.train=4"], ["--limit train=3 and --set limits.train=4"]),
        (["bigrec", "--llm", "a", "--set", "llm=b"], ["--llm and --set llm=b", "give one of them"]),
        (["bigrec", "--seed", 1, "--set", "seed = 2"], ["--seed and --set seed = 2", "give one of them"]),
        (["knn", "--set", "reference.kind=blend"], ["reference.kind=blend", "give --teacher blend"]),
    ],
)
def test_what_a_teacher_would_not_read(options: list[object], words: list[str], dataset: Path, tmp_path: Path) -> None:
    refused(call("teach", dataset, "--teacher", *options, "--out", tmp_path / "k"), *words)
    assert not (tmp_path / "k").exists()


def test_a_limit_of_one_split_counts_more_than_that_of_all(dataset: Path, tmp_path: Path) -> None:
    asked = ("teach", dataset, "--teacher", "knn", "--limit", "train=4", "--limit", 10, "--out", tmp_path / "k")
    assert call(*asked, "--json").json["labels"] == {"train": 4, "validation": 10, "test": 10}


def test_labels_that_are_there_already_for_another_teacher_stay(dataset: Path, llm: Path, knowledge: Path) -> None:
    before = sorted(path.name for path in knowledge.iterdir())
    outcome = call("teach", dataset, "--llm", llm, "--seed", 7, *SMALL_TEACHER, "--out", knowledge)
    refused(outcome, "seed is 0, asked for 7")
    assert sorted(path.name for path in knowledge.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "many"], ["--limit many", "number"]),
        (["--limit", "trian=3"], ["--limit trian=3"]),
        (["--limit", "train=999999"], ["train", "999999"]),
        (["--split", "tset"], ["--split tset", "did you mean 'test'"]),
        (["--budget", "999999"], ["--budget 999999", "training examples", "give a count from 1 to"]),
        (["--budget", "0"], ["--budget 0", "give a count from 1 to"]),
        (["--budget", "-5"], ["--budget -5", "give a count from 1 to"]),
        (["--budget", "many"], ["--budget many", "give a count from 1 to"]),
        (["--budget", "101%"], ["--budget 101%", "up to 100%"]),
        (["--budget", "5", "--limit", "train=4"], ["--budget 5 and train=4", "give one of them"]),
        (["--budget", "5", "--set", "limits.train=4"], ["--budget 5 and limits.train=4", "give one of them"]),
        (["--choose", "uncertian"], ["choose", "'uncertian'", "did you mean 'uncertain'"]),
        (["--choose", "diverse", "--vectors", "nowhere"], ["nowhere: no such directory", "dllm2rec teach"]),
        (["--set", "tuning.exmaples=3"], ["tuning.exmaples", "did you mean 'tuning.examples'"]),
        (["--set", "tuning.dropout=1"], ["tuning.dropout", "at least 0 and less than 1"]),
    ],
)
def test_bad_settings(options: list[str], words: list[str], dataset: Path, llm: Path, tmp_path: Path) -> None:
    refused(call("teach", dataset, "--llm", llm, *options, "--out", tmp_path / "k"), *words)
    assert not (tmp_path / "k").exists()


def test_models_that_are_not_there(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "k"
    refused(call("teach", dataset, "--llm", "smollm-135m", "--out", out), "smollm-135m", "did you mean 'smollm2-135m'")
    refused(call("teach", dataset, "--llm", tmp_path / "no.gguf", "--out", out), "no.gguf")
    (tmp_path / "empty").mkdir()
    refused(call("teach", dataset, "--llm", tmp_path / "empty", "--out", out), "config.json")
    refused(call("teach", dataset, "--teacher", "encoder", "--model", "./nothing", "--out", out), "minilm")
    assert not out.exists()


def test_only_a_language_model_needs_its_libraries(
    dataset: Path, llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("transformers", "sentence_transformers", "peft", "trl", "datasets", "huggingface_hub"):
        monkeypatch.setitem(sys.modules, library, None)
    counted = call("teach", dataset, "--teacher", "knn", "--limit", 5, "--out", tmp_path / "knn")
    assert counted.code == 0, counted.err
    for teacher in ("bigrec", "texts"):
        asked = call("teach", dataset, "--teacher", teacher, "--llm", llm, "--out", tmp_path / "k")
        refused(asked, "needs transformers", "pip install 'dllm2rec[teach]'")
    for model in ("minilm", "owner/name"):
        asked = call("teach", dataset, "--teacher", "encoder", "--model", model, "--out", tmp_path / "k")
        refused(asked, "pip install 'dllm2rec[teach]'")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("content", [b"not a model", b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 64])
def test_a_gguf_that_is_none(content: bytes, dataset: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    refused(call("teach", dataset, "--llm", file, "--out", tmp_path / "k"), "model.gguf", "GGUF")
    assert not (tmp_path / "k").exists()


def test_a_directory_that_is_no_dataset(tmp_path: Path) -> None:
    refused(call("teach", tmp_path, "--teacher", "knn", "--out", tmp_path / "k"), "not a dataset", "prepare")
    refused(call("teach", tmp_path / "no", "--teacher", "knn", "--out", tmp_path / "k"), "no such directory", "prepare")


def test_an_output_directory_that_holds_something_else(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    refused(call("teach", dataset, "--teacher", "knn", "--out", tmp_path), "something else")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_do_not_teach_in_one_place(dataset: Path, taught: Path, tmp_path: Path) -> None:
    with exclusive(tmp_path / "k"):
        for how in (["--teacher", "knn"], ["--import", tmp_path / "theirs"]):
            (tmp_path / "theirs").mkdir(exist_ok=True)
            np.save(tmp_path / "theirs" / "all_embeddings.npy", np.ones((30, 4), np.float32))
            refused(call("teach", dataset, *how, "--out", tmp_path / "k"), str(tmp_path / "k"), "another dllm2rec")
    assert not (tmp_path / "k").exists()
