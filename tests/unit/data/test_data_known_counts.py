import subprocess
import sys
from pathlib import Path

import pytest

from dllm2rec.data import Dataset, PaperSplit, Split, read_log, write_dataset

DATA = Path(__file__).parents[3] / "../shared/data"
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the development data is not at {DATA}")


@needs_data
@pytest.mark.parametrize(
    ("name", "examples", "items"),
    [("toys", 47_931, 11_758), ("games", 135_899, 16_874), ("movielens-1m", 939_211, 3_416)],
)
def test_examples_of_the_paper_split(tmp_path: Path, name: str, examples: int, items: int) -> None:
    log = read_log(DATA / name / "interactions.parquet", DATA / name / "items.parquet")
    counts = write_dataset(log, PaperSplit(), tmp_path / name, name=name).manifest.counts

    assert sum(counts.values()) == examples
    assert counts["train"] == examples * 8 // 10
    assert counts["train"] + counts["validation"] == examples * 9 // 10
    assert log.items.height == items


@needs_data
def test_movielens_sampled_as_in_the_paper(tmp_path: Path) -> None:
    log = read_log(DATA / "movielens-1m/interactions.parquet", DATA / "movielens-1m/items.parquet")
    settings = PaperSplit(sample_train=100_000, sample_test=10_000)
    dataset = write_dataset(log, settings, tmp_path / "ml", name="movielens-1m")
    parts = {split: dataset.examples(split) for split in SPLITS}

    assert [len(part) for part in parts.values()] == [100_000, 93_921, 10_000]
    assert parts["train"].time.max() <= parts["validation"].time.min()
    assert parts["validation"].time.max() <= parts["test"].time.min()
    assert len({int(value) for part in parts.values() for value in part.example_id}) == 203_921
    Dataset.load(dataset.path, verify=True)


@needs_data
def test_a_million_events_in_15_seconds_and_2_gigabytes(tmp_path: Path) -> None:
    folder = DATA / "movielens-1m"
    program = (
        "import sys, time; from pathlib import Path; start = time.perf_counter();"
        "from dllm2rec.data import PaperSplit, write_dataset, read_log;"
        "log = read_log(Path(sys.argv[1]), Path(sys.argv[2]));"
        "write_dataset(log, PaperSplit(), Path(sys.argv[3]), name='ml');"
        "status = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines());"
        "print(time.perf_counter() - start, int(status['VmHWM'].split()[0]) / 2**20)"  # ru_maxrss counts the parent's
    )
    arguments = [folder / "interactions.parquet", folder / "items.parquet", tmp_path / "ml"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, done.stdout.split())

    assert seconds < 15
    assert gigabytes < 2
