"""What a task's model servers did, as one page to read and as the same numbers in JSON.

`metrics` samples a server's own metrics while it works, `collect` puts them beside what the clients
and batches saw, `data` holds all of that as plain JSON, `advice` says what to change, `page`
renders it (with `markup` and `style`), and `charts` draws, in a process of its own. Standard
library only, but for the charts: matplotlib, the extra `report`.
"""

from __future__ import annotations

from .collect import note_batch, report
from .data import Advice, ReportData, ServerData
from .metrics import sampling
from .result import Report

__all__ = ["Advice", "Report", "ReportData", "ServerData", "note_batch", "report", "sampling"]
