"""The tables of options: each is what the frame makes of its data, so none is edited by hand."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
frame = runpy.run_path(str(ROOT / "dev" / "options" / "frame.py"))
TABLES = sorted(frame["INFERENCE"].glob("*/options.py"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_each_table_is_as_it_was_written(path: Path) -> None:
    written = path.read_text(encoding="utf-8")
    program = re.search(r"The options of `([^`]+)`", written)
    source = re.search(r"Read from (.*) (\S+)\.\nWritten by", written, re.DOTALL)
    assert program
    assert source
    data = runpy.run_path(str(path))
    options = frame["Options"](
        room=path.parent.name,
        program=program[1],
        source=" ".join(source[1].split()),
        version=source[2],
        kinds=defaultdict(set, {kind: set(data.get(kind, ())) for kind in frame["KINDS"]}),
        readers=defaultdict(set, {name: set(data.get(name, ())) for name in frame["READERS"]}),
        choices=data.get("CHOICES", {}),
        commas=set(data.get("COMMAS", ())),
        **{table.lower(): data.get(table, {}) for table in frame["TABLES"]},
    )
    assert data["VERSION"] == options.version
    assert frame["text"](options) == written
    assert max(map(len, written.splitlines())) <= frame["WIDTH"]


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.parent.name)
def test_every_name_is_of_one_kind_and_every_other_name_leads_to_one(path: Path) -> None:
    data = runpy.run_path(str(path))
    kinds = [data[kind] for kind in frame["KINDS"] if kind in data]
    names = set().union(*kinds)
    assert len(names) == sum(map(len, kinds))
    for table in ("ALIASES", "INVERSES", "ENVIRONMENT"):
        assert set(data.get(table, {}).values()) <= names
    assert names.isdisjoint(data.get("REMOVED", {}))
    assert data.get("COMMAS", frozenset()) <= data["VALUES"]
    assert data.get("CHOICES", {}).keys() <= data["VALUES"]
    for reader in frame["READERS"]:
        kind = "JSON" if reader in ("OBJECTS", "TEXTS") else "VALUES"
        assert data.get(reader, frozenset()) <= data.get(kind, frozenset())


@pytest.mark.parametrize("words", [[], ["nothing"], ["tei"], ["llamacpp", "b1", "b2"]])
def test_a_wrong_command_line_is_told_the_right_ones(words: list[str]) -> None:
    command = [sys.executable, "-m", "dev.options", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 64
    assert "python -m dev.options llamacpp b11549" in done.stderr
