"""A batch goes on from the journal that an earlier version of this package wrote."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from client.batch.stub import Server
from flytekitplugins.inference.client.batch import batch, chat

WRITTEN_BY_0_1_0 = """
PRAGMA application_id = 1768055156;
CREATE TABLE parameters (json TEXT NOT NULL);
INSERT INTO parameters VALUES ('{"column": "text", "id": "id", "max_tokens": 8, "model": "tiny", \
"system": "Label it.", "version": 1, "work": "chat"}');
CREATE TABLE results (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    content BLOB NOT NULL,
    keep INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    record TEXT NOT NULL
);
INSERT INTO results VALUES (1, X'4D595820E1C66F749C24D0BA24B5B6D4', \
X'086F9874D8D8B8F7EC126CC04144CA90', 1, 0, \
'{"id": "a", "error": null, "output": "kept", "finish_reason": "stop", \
"prompt_tokens": 2, "completion_tokens": 3, "attempts": 1, "seconds": 0.0016}');
"""
"""The format: the mark of the file, the tables, the names of the parameters, the keys of rows."""
WORK = chat(column="text", system="Label it.", max_tokens=8)
ROWS = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]


def journal_at(output: Path, script: str) -> None:
    database = sqlite3.connect(output.with_name(f"{output.name}.journal"))
    database.executescript(script)
    database.close()


def test_what_0_1_0_finished_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    output = tmp_path / "labels.jsonl"
    journal_at(output, WRITTEN_BY_0_1_0)
    result = batch(server.endpoint, ROWS, work=WORK, id="id", output=output, progress=False)
    assert [record["output"] for record in result] == ["kept", "answer to y"]
    assert server.texts == ["y"]
    assert not output.with_name("labels.jsonl.journal.previous").exists()


def test_a_journal_of_another_format_is_moved_away_and_named(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "labels.jsonl"
    journal_at(output, WRITTEN_BY_0_1_0.replace('"version": 1', '"version": 0'))
    result = batch(server.endpoint, ROWS, work=WORK, id="id", output=output, progress=True)
    assert [record["output"] for record in result] == ["answer to x", "answer to y"]
    previous = sqlite3.connect(output.with_name("labels.jsonl.journal.previous"))
    (text,) = previous.execute("SELECT json FROM parameters").fetchone()
    previous.close()
    assert json.loads(text)["version"] == 0
    assert "(version: 0 → 1)" in capsys.readouterr().err
