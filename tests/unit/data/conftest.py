from collections.abc import Callable
from pathlib import Path

import pytest

WriteLog = Callable[..., tuple[Path, Path]]


@pytest.fixture
def write_log(tmp_path: Path) -> WriteLog:
    """Write interactions and items as CSV; both are sound unless a test says otherwise."""

    def write(
        rows: str = "a,1,10\na,2,20\nb,2,15\nb,3,30\n",
        items: str = "1,One\n2,Two\n3,Three\n",
        *,
        header: str = "user_id,item_id,timestamp\n",
        items_header: str = "item_id,title\n",
    ) -> tuple[Path, Path]:
        (tmp_path / "log.csv").write_text(header + rows, encoding="utf-8")
        (tmp_path / "items.csv").write_text(items_header + items, encoding="utf-8")
        return tmp_path / "log.csv", tmp_path / "items.csv"

    return write
