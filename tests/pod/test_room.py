"""What the room says of itself."""

from __future__ import annotations

import pkgutil
import re

from flytekitplugins.inference import pod


def test_the_docstring_lists_every_module_once() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", pod.__doc__ or "", re.MULTILINE)
    assert sorted(listed) == sorted(module.name for module in pkgutil.iter_modules(pod.__path__))
