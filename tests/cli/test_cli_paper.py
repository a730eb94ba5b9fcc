"""`dllm2rec paper`: tables and the figure from runs, and what can't be one."""

import csv
import io
import shutil
from pathlib import Path

import pytest
from cli_helpers import SMALL_PAPER, call, log_rows, refused, write_log

from dllm2rec.reporting.paper.published import DATASETS, dataset_of, on, result

DLLM = ["--method", "dllm2rec"]
CELLS: dict[str, list[str]] = {
    "plain-1": ["--method", "none"],
    "plain-2": ["--method", "none", "--seed", "2"],
    "hint": ["--method", "hint"],
    "strong hint": ["--method", "hint", "--set", "method.lambda_d=1"],
    "full-1": DLLM,
    "full-2": [*DLLM, "--seed", "2"],
    "trial": [*DLLM, "--set", "training.learning_rate=0.5"],
    "no-ranking": [*DLLM, "--set", "method.lambda_d=0"],
    "no-position": [*DLLM, "--set", "method.gamma_position=0"],
    "small-lambda": [*DLLM, "--set", "method.lambda_d=0.1"],
    "no-embedding": [*DLLM, "--set", "method.embedding=false"],
    "no-offset": [*DLLM, "--set", "method.embedding=projection"],
    "by-hint": [*DLLM, "--set", "method.embedding=hint"],
    "by-htd": [*DLLM, "--set", "method.embedding=htd"],
}
NAMES = {"full": "DLLM2Rec", "trial": "DLLM2Rec"}


@pytest.fixture(scope="module")
def results(dataset: Path, taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with names as a configuration gives them."""
    from dllm2rec.core.files import read_json, write_json

    folder = tmp_path_factory.mktemp("results")
    for name, options in CELLS.items():
        knowledge = [] if "none" in options else ["--knowledge", taught]
        outcome = call("train", dataset, *SMALL_PAPER, *options, *knowledge, "--out", folder / name)
        assert outcome.code == 0, outcome.err
        config = read_json(folder / name / "config.json")
        method = name.rpartition("-")[0] if name[-1].isdigit() else name
        write_json(folder / name / "config.json", config | {"student": "SASRec", "method": NAMES.get(method, method)})
    return folder


def rows(results: Path, *options: object) -> list[dict[str, str]]:
    outcome = call("paper", results, *options, "--format", "csv")
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if not line.startswith("#")]
    return list(csv.DictReader(io.StringIO("\n".join(lines))))


def test_table_5_has_every_method_and_marks_what_was_not_run(results: Path) -> None:
    found = {row["method"]: row for row in rows(results, "--table", 5) if row["student"] == "SASRec"}
    assert list(found)[:4] == ["none", "Hint", "HTD", "RD"]
    assert "SASRec + strong hint" in found
    assert 0 <= float(found["DLLM2Rec"]["HR@20"]) <= 1  # what reads CSV wants numbers
    assert float(found["DLLM2Rec"]["HR@20 sd"]) >= 0
    assert found["KAR"]["HR@20 sd"] == ""
    assert found["DLLM2Rec"]["vs plain"] != "-"
    assert found["KAR"]["HR@20"] == "-"
    assert "no-position" not in found
    assert "by-hint" not in found
    references = [row["student"] for row in rows(results, "--table", 5) if not row["method"]]
    assert references[:5] == ["popularity", "recent popularity", "item-kNN", "EASE", "item-kNN + text"]


def test_of_several_settings_of_a_cell_the_one_with_most_seeds_counts(results: Path) -> None:
    outcome = call("paper", results, "--table", 5, "--json")
    (table,) = outcome.json
    seeds = " ".join(table["notes"]).partition("Seeds: ")[2]
    assert "DLLM2Rec" in seeds.partition("1, 2 (")[2].partition(")")[0]


def test_the_tables_about_the_teacher(results: Path) -> None:
    first, sixth = rows(results, "--table", 1), rows(results, "--table", 6)
    assert first[0][""].startswith("teacher bigrec")
    assert [row[""] for row in sixth][1:] == ["SASRec plain", "SASRec + DLLM2Rec"]
    assert float(sixth[1]["times as fast as the teacher"].replace(",", "")) > 1
    (wins,) = rows(results, "--table", 2)
    assert wins["student"] == "SASRec plain"
    (overlap,) = rows(results, "--table", 3)
    (after,) = rows(results, "--table", 7)
    assert after["before"] == overlap["overlap"]
    (counts,) = rows(results, "--table", 4)
    assert (counts["users"], counts["paper users"]) == ("40", "-")


def test_ablations_name_each_part_and_what_is_missing(results: Path) -> None:
    ranking = {row[""]: row for row in rows(results, "--table", 8) if row[""]}
    assert list(ranking)[:2] == ["all of it", "without ranking distillation"]
    assert ranking["without position weights"]["NDCG@20"] != "-"
    assert ranking["without confidence weights"]["NDCG@20"] == "-"
    embedding = {row[""]: row for row in rows(results, "--table", 9) if row[""]}
    assert all(row["NDCG@20"] != "-" for row in embedding.values())
    assert embedding["all of it"]["NDCG@20"] == ranking["all of it"]["NDCG@20"]


def test_an_ablation_is_about_the_cell_that_the_others_vary(results: Path, tmp_path: Path) -> None:
    """Of equally many seeds, another weight with a better validation is not what the parts are left out of."""
    from dllm2rec.core.files import read_json, write_json

    folder = shutil.copytree(results, tmp_path / "results")
    for extra in ("full-2", "trial"):
        shutil.rmtree(folder / extra, ignore_errors=True)
    result = read_json(folder / "small-lambda" / "result.json")
    result["fit"]["validation"]["NDCG@20"] = 0.99
    write_json(folder / "small-lambda" / "result.json", result)
    table = {row[""]: row for row in rows(folder, "--table", 8) if row[""]}
    assert table["without position weights"]["NDCG@20"] != "-"
    assert {row["student"] for row in table.values()} == {"SASRec + DLLM2Rec"}


def test_figure_2_as_a_table_and_as_a_file(results: Path, tmp_path: Path) -> None:
    points = rows(results, "--figure", 2)
    assert [(row["setting"], row["value"]) for row in points][:3] == [
        ("lambda_d", "0"),
        ("lambda_d", "0.1"),
        ("lambda_d", "0.7"),
    ]
    outcome = call("paper", results, "--figure", 2, "--table", 8, "--format", "latex", "--out", tmp_path / "paper")
    assert outcome.code == 0, outcome.err
    assert {file.name for file in (tmp_path / "paper").iterdir()} == {"figure-2.tex", "figure-2.html", "table-8.tex"}
    html = (tmp_path / "paper" / "figure-2.html").read_text()
    assert "gamma_position" in html
    assert "http" not in html.split("</script>")[-1]


def test_latex_and_markdown(results: Path) -> None:
    latex = call("paper", results, "--table", 5, "--format", "latex").out
    assert r"\begin{tabular}{lllrrrrrr}" in latex
    assert r"\textbf{" in latex
    assert "Ranks: among all 30 items" in latex
    markdown = call("paper", results, "--table", 5).out
    assert "**Table 5." in markdown
    assert "Cui et al., RecSys 2024, arXiv:2405.00338" in markdown
    assert " ± " in markdown


def test_without_a_number_all_tables_that_there_are(results: Path, runs: dict[str, Path]) -> None:
    names = [table["name"] for table in call("paper", results, "--json").json]
    assert "Table 5" in names
    assert "Table 8" in names
    printed = call("paper", results).out
    assert printed.count("**Table") == len(names)
    assert printed.count("Ranks: among all") == 1  # what all have in common stands below the last
    assert printed.splitlines()[-1].startswith("- '-' was not run")
    of_one = [table["name"] for table in call("paper", runs["plain"], "--json").json]
    assert "Table 5" in of_one
    assert "Table 8" not in of_one


def test_what_can_not_be_a_table(results: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    refused(call("paper", results, "--table", 10), "tables 1 to 9")
    refused(call("paper", results, "--figure", 3), "--figure 3")
    refused(call("paper", tmp_path / "none", "--table", 5), "no such directory")
    refused(call("paper", tmp_path, "--table", 5), "holds no finished run")
    refused(call("paper", runs["plain"], "--table", 8), "table 8 needs")
    refused(call("paper", runs["plain"], "--figure", 2), "figure 2 needs")
    refused(call("paper", results, runs["plain"], "--table", 5), "the same dataset")


def test_two_directories_of_one_dataset_are_refused_before_anything_is_ranked(
    results: Path, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dllm2rec.reporting.paper.cells as module

    monkeypatch.setattr(module, "gather", None)
    refused(call("paper", results, runs["plain"]), "the same dataset")


def test_a_copy_of_a_run_changes_no_table(results: Path, tmp_path: Path) -> None:
    (both := tmp_path / "both").mkdir()
    for name in ("once", "again"):
        shutil.copytree(results, both / name)
    tables = [call("paper", path, "--table", 5).out for path in (both / "once", both)]
    assert tables[0] == tables[1]


def test_runs_of_different_datasets_make_no_table(results: Path, tmp_path: Path) -> None:
    from dllm2rec.core.files import read_json, write_json

    mixed = tmp_path / "mixed"
    shutil.copytree(results / "plain-1", mixed / "one")
    files = write_log(tmp_path / "log", log_rows()[:-5])
    assert call("prepare", *files, "--set", "split.history=5", "--out", tmp_path / "other").code == 0
    assert call("train", tmp_path / "other", *SMALL_PAPER, "--out", mixed / "two").code == 0
    refused(call("paper", mixed, "--table", 5), "different datasets or splits", "one", "two")
    config = read_json(mixed / "two" / "config.json")
    write_json(mixed / "two" / "config.json", config | {"continues": config["dataset"]})
    refused(call("paper", mixed, "--table", 5), "two is an update, whose dataset has later events")


def test_the_transcription_is_the_papers() -> None:
    assert result("DROS", "DLLM2Rec", "Games") == (0.0751, 0.0331)
    assert result("teacher", "BIGRec", "Toys") == (0.0420, 0.0207)
    assert result("SASRec", "no such", "Toys") is None
    assert on("wins", "Toys") == 0.6667
    gains = [
        result(student, "DLLM2Rec", name)[place] / result(student, "none", name)[place] - 1  # type: ignore[index]
        for student in ("GRU4Rec", "SASRec", "DROS")
        for name in DATASETS
        for place in (0, 1)
    ]
    assert sum(gains) / len(gains) == pytest.approx(0.4797, abs=0.01)


@pytest.mark.parametrize(
    ("name", "num_items", "found"),
    [
        ("toys", 11_758, "Toys"),
        ("Toys and Games 2018", 11_924, "Toys"),
        ("toys", 12, None),
        ("ml-1m", 3_706, None),
        ("ml-10m", 10_681, "MovieLens"),
        ("shop", 17_408, None),
    ],
)
def test_the_papers_figures_stand_beside_its_own_datasets_only(name: str, num_items: int, found: str | None) -> None:
    assert dataset_of(name, num_items) == found
