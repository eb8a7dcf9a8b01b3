"""A row's record, as in the journal and the output."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from .faults import Fault
from .json_form import as_json
from .rows import Row
from .work import RowAnswer


@dataclass(slots=True)
class Failure:
    """One row that failed."""

    position: int
    id: Any
    error: dict[str, Any]

    def __str__(self) -> str:
        name = f"row {self.position + 1}" + (f" (id {self.id!r})" if self.id is not None else "")
        return f"{name}: {self.error['kind']}: {self.error['message']}"


def record_of_row(row: Row, outcome: RowAnswer | Fault, seconds: float) -> str:
    """Return a row's record as JSON, without its index, which may differ in a later run.

    Raises:
        TypeError: The output has no form as JSON; the same holds for the two below.
        ValueError: As above.
        RecursionError: As above.
    """
    answer = outcome if isinstance(outcome, RowAnswer) else RowAnswer(None)
    fields = {
        "id": row.id,
        "error": outcome.to_json() if isinstance(outcome, Fault) else None,
        "output": answer.output,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "attempts": row.attempts,
        "seconds": round(seconds, 4),
    }
    text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=as_json)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A model may write an unpaired surrogate, which UTF-8 cannot encode; its escape can be.
        return json.dumps(fields, allow_nan=False, default=as_json)
    return text
