"""The example, run as its readers run it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from pyarrow import parquet

ROOT = Path(__file__).parents[3]


@pytest.mark.live
@pytest.mark.slow
def test_the_example_embeds_all_rows_in_order_on_this_machine() -> None:
    # a short path: LitServe makes Unix sockets in it, whose paths have at most 103 bytes
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="batch-") as scratch:
        words = [
            "run",
            "examples/batch_at_scale/workflow.py",
            "embed_all",
            "--rows",
            "1000",
            "--shards",
            "3",
        ]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("pyflyte")), *words],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": scratch, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "merge: 1000 rows of 3 shards, 0 failed" in done.stdout
        (path,) = Path(scratch).rglob("all.parquet")
        table = parquet.read_table(path)
    assert table["index"].to_pylist() == list(range(1000))
    assert table["id"].to_pylist() == [str(number) for number in range(1000)]
    assert {len(vector) for vector in table["output"].to_pylist()} == {256}
