import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from dllm2rec.core.errors import UserError
from dllm2rec.data import ml_100k, read_log
from dllm2rec.data.sources import read_table

TABLE = pl.DataFrame({"user_id": ["007", "b"], "item_id": ["1", "2"], "timestamp": ["5", "6"]})


def test_delimited_text_keeps_ids_as_written(tmp_path: Path) -> None:
    TABLE.write_csv(tmp_path / "log.csv")
    TABLE.write_csv(tmp_path / "log.tsv", separator="\t")

    assert read_table(tmp_path / "log.csv").equals(TABLE)
    assert read_table(tmp_path / "log.tsv").equals(TABLE)


def test_csv_with_byte_order_mark_quotes_and_blank_lines_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b'\xef\xbb\xbfuser_id,item_id\r\n"a ""q"", x",1\r\nb,2\r\n\r\n\r\n')

    assert read_table(path).rows() == [('a "q", x', "1"), ("b", "2")]


def test_parquet_and_json_lines_keep_types(tmp_path: Path) -> None:
    table = TABLE.cast({"item_id": pl.Int64})
    table.write_parquet(tmp_path / "log.parquet")
    table.write_ndjson(tmp_path / "log.jsonl")
    table.write_ndjson(tmp_path / "log.ndjson")

    for name in ("log.parquet", "log.jsonl", "log.ndjson"):
        assert read_table(tmp_path / name).equals(table)


def test_json_lines_may_begin_with_a_mark_of_their_encoding(tmp_path: Path) -> None:
    TABLE.write_ndjson(tmp_path / "log.jsonl")
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "log.jsonl").read_bytes())
    assert read_table(tmp_path / "marked.jsonl").equals(read_table(tmp_path / "log.jsonl"))


def test_of_parquet_only_what_is_chosen_is_read(tmp_path: Path) -> None:
    TABLE.write_parquet(tmp_path / "log.parquet")
    found = read_table(tmp_path / "log.parquet", choose=lambda there: [there[2], there[0]])
    assert found.equals(TABLE.select("timestamp", "user_id"))


def test_recbole_header_loses_its_types_and_quotes_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.item"
    path.write_text('item_id:token\tmovie_title:token_seq\n1\t"Odd\n2\tEven\n')

    assert read_table(path).to_dict(as_series=False) == {"item_id": ["1", "2"], "movie_title": ['"Odd', "Even"]}


def test_recbole_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.item"
    path.write_text("id:token\tid:float\n1\t2\n")

    with pytest.raises(UserError, match="two columns have one name"):
        read_table(path)


@pytest.mark.parametrize("name", ["log.csv.gz", "log.jsonl.gz"])
def test_a_compressed_file_that_was_cut_short(tmp_path: Path, name: str) -> None:
    text = "".join(f'{{"user_id": "{row * 7919 % 1000}"}}\n' for row in range(9_000))
    (tmp_path / name).write_bytes(gzip.compress(text.encode())[:-2_000])
    with pytest.raises(UserError, match=r"log\..*the compressed file is damaged or cut short"):
        read_table(tmp_path / name)


def test_ml_100k_comes_from_the_package() -> None:
    log = read_log(*ml_100k())

    assert log.interactions.height == 100_000
    assert log.items.height == 1_682
    assert log.items["title"][0] == "Toy Story"
    assert {"release_year", "class"} <= set(log.items.columns)


def test_ml_100k_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(UserError, match="pip install --no-deps recbole"):
        ml_100k()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".inter", ".item"])
def test_empty_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"log{suffix}"
    path.touch()

    with pytest.raises(UserError, match=r"log.*the file is empty"):
        read_table(path)


@pytest.mark.parametrize("text", ["user_id,item_id,timestamp\n", "user_id,item_id,timestamp", "user_id,item_id\n\n\n"])
def test_header_only(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)

    with pytest.raises(UserError, match="no row below the header"):
        read_table(path)


def test_parquet_without_rows(tmp_path: Path) -> None:
    TABLE.clear().write_parquet(tmp_path / "log.parquet")

    with pytest.raises(UserError, match="no row below the header"):
        read_table(tmp_path / "log.parquet")


def test_missing_file_directory_and_unknown_format(tmp_path: Path) -> None:
    (tmp_path / "log.pkl").write_bytes(b"x")
    (tmp_path / "folder.csv").mkdir()

    with pytest.raises(UserError, match=r"absent\.csv: no such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match=r"folder\.csv: is a directory"):
        read_table(tmp_path / "folder.csv")
    with pytest.raises(UserError, match=r"'\.pkl' is unknown .*\.parquet"):
        read_table(tmp_path / "log.pkl")


def test_row_with_too_many_fields_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("user_id,item_id\na,1\nb,2,3\n")

    with pytest.raises(UserError, match="row 2 has 3 fields, the header has 2"):
        read_table(path)


def test_quotes_within_a_field_are_text(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text('item_id,title,,\n1,3" disk\n2,\n\n3,"a ""q"", x",,\n')

    rows = [("1", '3" disk'), ("2", None), (None, None), ("3", 'a "q", x')]
    assert read_table(path).select("item_id", "title").rows() == rows


@pytest.mark.parametrize("title", ['"Best" game', '"Best game'])
def test_a_row_with_a_quote_that_can_not_be_read_is_named(tmp_path: Path, title: str) -> None:
    path = tmp_path / "items.csv"
    path.write_text(f"item_id,title\n1,a\n2,{title}\n3,c\n")

    with pytest.raises(UserError, match=r"items\.csv: row 2 does not parse .*write it twice"):
        read_table(path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["log.csv", "log.tsv"])
def test_what_stands_between_fields_is_seen_in_the_header(tmp_path: Path, name: str, separator: str) -> None:
    TABLE.write_csv(tmp_path / name, separator=separator)

    assert read_table(tmp_path / name).equals(TABLE)


def test_a_comma_in_the_header_counts_before_other_separators(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("id,a;b;c\n1,2\n")

    assert read_table(tmp_path / "log.csv").columns == ["id", "a;b;c"]


def test_compressed_text(tmp_path: Path) -> None:
    text = TABLE.write_csv()
    lines = TABLE.write_ndjson()
    for name, whole in {"log.csv.gz": text, "log.tsv.GZ": text, "log.jsonl.gz": lines}.items():
        path = tmp_path / name
        packed = gzip.compress(whole.encode())
        path.write_bytes(packed)
        assert read_table(path).equals(TABLE)
        path.write_bytes(packed[:-12])
        with pytest.raises(UserError, match=r"(?i)log.*gz: .*(cut short|end of file)"):
            read_table(path)


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id,user_id\n1,2,3\n")

    with pytest.raises(UserError, match="two columns are named 'user_id'"):
        read_table(tmp_path / "log.csv")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_that_is_not_utf_8(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes("user_id,item_id\nJosé,1\n".encode(encoding))

    with pytest.raises(UserError, match="not UTF-8"):
        read_table(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\nfoo\n', "line 2 is not JSON"),
        ('{"a": 1}\n{"a": NaN}\n', "line 2 is not JSON .NaN is not"),
        ("[1, 2]\n", "line 1 is not a JSON object"),
        ('{"a": 1', "line 1 is not JSON"),
    ],
)
def test_bad_json_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(text)

    with pytest.raises(UserError, match=message):
        read_table(path)


def test_garbage_with_a_parquet_name(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    for garbage in (b"x", b"PAR1", b"PAR1PAR1", b"user_id,item_id\n1,2\n", json.dumps({"a": 1}).encode() * 100):
        path.write_bytes(garbage)
        with pytest.raises(UserError, match="not a Parquet file, or cut short") as error:
            read_table(path)
        assert "\n" not in str(error.value)


def test_parquet_truncated_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.concat([TABLE] * 50).write_parquet(path)
    whole = path.read_bytes()
    for size in range(1, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="not a Parquet file, or cut short"):
            read_table(path)
