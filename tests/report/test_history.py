"""The history in a run folder, or in a folder of something else."""

from math import isnan
from pathlib import Path

import pytest

from deformable_detr.report.history import MAX_BYTES, read_history


def test_columns_and_settings(tmp_path: Path) -> None:
    assert read_history(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("epoch,loss,AP\n1,3.5,nan\n2,2.5,\n")
    history = read_history(tmp_path)
    assert history is not None
    assert history.columns["epoch"] == [1, 2]
    assert history.columns["loss"] == [3.5, 2.5]
    assert all(map(isnan, history.columns["AP"]))
    assert history.settings == ""
    (tmp_path / "config.yaml").write_text("recipe: {epochs: 2}", encoding="utf-8")
    assert read_history(tmp_path).settings == "recipe: {epochs: 2}"  # pyright: ignore[reportOptionalMemberAccess]


@pytest.mark.parametrize(("content", "message"), [
    (b"", "expected a column epoch of numbers, got nothing"),
    (b"epoch,loss\n", "expected a column epoch"),
    (b"loss\n1\n", "expected a column epoch of numbers, got loss"),
    (b"epoch\ninf\n", "expected a column epoch of numbers"),
    (b"epoch,loss\n1,2\n2,<b>\n", "line 3"),
    (b"epoch,loss\n1\n", "line 2"),
    (b"epoch\n1\xff\n", "cannot be read"),
    (b"epoch\n" + b"1\n" * MAX_BYTES, "cannot be read"),
    (b"epoch\n" + b"1" * 200_000, "field larger than field limit"),
])
def test_a_file_that_is_no_table_of_metrics(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.csv") as raised:
        read_history(tmp_path)
    assert message in str(raised.value)
    assert len(str(raised.value)) < 1000
