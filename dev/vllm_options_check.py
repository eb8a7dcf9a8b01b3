"""Parse the cases of `tests/vllm_options_cases.json` with the parser of an installed vLLM.

    python dev/vllm_options_check.py

Run it with the Python of an environment that has vLLM. Each case has an `arg_dict`, the `argv` that
it becomes, and what the server must understand: `parsed`, values by name, for configuration objects
the named fields only.
"""

from __future__ import annotations

import contextlib
import enum
import io
import json
import runpy
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CASES = HERE.parent / "tests/vllm_options_cases.json"


def matches(actual: Any, expected: Any) -> bool:
    """Whether a parsed value is the expected one."""
    if isinstance(expected, dict) and not isinstance(actual, dict):
        return all(matches(getattr(actual, key, None), value) for key, value in expected.items())
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) == len(expected)
            and all(map(matches, actual, expected))
        )
    if isinstance(actual, enum.Enum):
        return expected in (actual.name, actual.value)
    return type(actual) is type(expected) and bool(actual == expected)


def main() -> int:
    parser, _ = runpy.run_path(str(HERE / "vllm_options.py"))["serve_parser"]()
    cases = json.loads(CASES.read_text())
    wrong = 0
    for case in cases:
        complaint = io.StringIO()
        try:
            with contextlib.redirect_stderr(complaint):
                parsed = parser.parse_args(["serve", "some/model", *case["argv"]])
        except SystemExit:
            found: dict[str, Any] = {"error": complaint.getvalue().strip().splitlines()[-1]}
        else:
            found = {
                name: getattr(parsed, name, "absent")
                for name in {"model_tag": "", **case["parsed"]}
            }
        expected = {"model_tag": "some/model", **case["parsed"]}
        if found.keys() != expected.keys() or not all(
            matches(found[name], expected[name]) for name in expected
        ):
            wrong += 1
            print(f"{case['argv']}\n    expected {expected}\n    found    {found}")
    print(f"{len(cases)} cases, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
