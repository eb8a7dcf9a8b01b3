"""What a task's model servers did, as one page to read and as the same numbers in JSON.

`metrics` samples a server's own metrics while it works, `collect` puts them beside what the clients
and batches saw, `snapshots` and `data` hold all of that as frozen dataclasses (`json_fields` reads
and writes them), `advice` says what to change, `page` renders it (with `panels`, `markup` and
`style`), `report_files` writes it, and `charts` draws, in a process of its own. Standard library
only, but for the charts: matplotlib, the extra `report`.
"""

from __future__ import annotations

from .collect import note_batch, report
from .data import Advice, ReportData, ServerData
from .metrics import sampling
from .report_files import Report

__all__ = ["Advice", "Report", "ReportData", "ServerData", "note_batch", "report", "sampling"]
