"""The progress of a transfer, in a file that survives a kill at any moment.

Each fact is one line, appended with a single write: `new <key>` when its partial file is empty,
`part <key> <start> <end>` when these bytes are in it, `done <key> <mtime_ns>` when all are. A
truncated line is ignored. The first line names the boot of the machine: a crash may lose bytes
whose lines were written, so the journal of another boot is discarded.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from pathlib import Path

from ...errors import DestinationError
from ..disk import writing
from ..kernel import boot_id

_NAME = "journal"


def transfer_key(*facts: object) -> str:
    """Return a name for a transfer, the same for the same facts.

    Facts are its address, size, version and destination.
    """
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


class TransferRecord:
    """The facts in a journal."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[int, int]] = {}
        """Key to the parts that have arrived, start to end."""
        self.done: dict[str, int] = {}
        """Key to the modification time of the complete file, in nanoseconds."""

    def load(self, text: str) -> bool:
        """Note all facts of a journal, if it belongs to this boot of the machine.

        Returns:
            Whether it does. Bytes that another boot wrote may not have reached the disk.
        """
        lines = text.split("\n")
        if lines[0] != f"boot {boot_id()}":
            return False
        # without the text after the last line break: it is empty, or a truncated line
        for line in lines[1:-1]:
            self.note(line.split(" "))
        return True

    def note(self, words: list[str]) -> None:
        """Note one fact."""
        if words[0] == "new" and len(words) == 2:
            self.parts.pop(words[1], None)
            self.done.pop(words[1], None)
        elif words[0] == "part" and len(words) == 4:
            self.parts.setdefault(words[1], {})[int(words[2])] = int(words[3])
        elif words[0] == "done" and len(words) == 3:
            self.done[words[1]] = int(words[2])


def read_record(directory: Path) -> TransferRecord:
    """Return the facts of the journal in `directory`, if any.

    Changes nothing, and needs no lock.
    """
    facts = TransferRecord()
    with contextlib.suppress(OSError):
        facts.load((directory / _NAME).read_text(encoding="utf-8", errors="replace"))
    return facts


class TransferJournal(TransferRecord):
    """The journal in `directory`, locked for this process.

    Args:
        directory: Where the journal and the partial files are.

    Raises:
        DestinationError: Another process holds the lock, or the journal cannot be written.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._path = directory / _NAME
        with writing(self._path):
            self._file = os.open(
                self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644
            )
            try:
                _lock(self._file)
            except BlockingIOError as error:
                os.close(self._file)
                raise DestinationError(
                    f"Another process is writing to {directory.parent}."
                ) from error
            self._read()

    def add(self, *words: object) -> None:
        """Append one line, and note its fact.

        Raises:
            DestinationError: The disk is full or broken.
        """
        texts = [str(word) for word in words]
        self._append((" ".join(texts) + "\n").encode())
        self.note(texts)

    def close(self) -> None:
        """Let another process work in the directory."""
        os.close(self._file)

    def _read(self) -> None:
        with os.fdopen(os.dup(self._file), "rb") as reader:
            text = reader.read().decode(errors="replace")
        if not self.load(text):
            os.ftruncate(self._file, 0)
            self.add("boot", boot_id())
        # a kill cut off the last line; its end keeps it apart from the next one
        elif not text.endswith("\n"):
            self._append(b"\n")

    def _append(self, line: bytes) -> None:
        with writing(self._path):
            # a disk that is almost full takes a part of the line, and refuses the rest
            while line:
                line = line[os.write(self._file, line) :]


def _lock(file: int) -> None:
    """Lock `file` for this process; some network file systems have no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
