"""`llama-quantize … <input> <output> COPY`, with which Ollama validates a GGUF file that it is given: a copy.

llama.cpp's own is in no wheel. The one byte more is for what is measured: llama.cpp writes the file
anew, so that it is another blob than the one that was uploaded.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

*_, source, target, kind = sys.argv
if kind != "COPY":
    sys.exit(f"llama-quantize: only COPY is known here, not {kind}")
shutil.copyfile(source, target)
with Path(target).open("ab") as copy:
    copy.write(b"\0")
