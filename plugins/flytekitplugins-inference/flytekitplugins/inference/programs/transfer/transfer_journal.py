"""What a transfer has done so far, in a file that survives a kill at any moment.

One line per fact, appended with a single write: `new <key>` when its partial file is empty, `part
<key> <start> <end>` when these bytes are in it, `done <key> <mtime_ns>` when all are. A line that
was cut short is ignored. The first line names the boot of the machine: when the machine crashed,
bytes may be lost although their line is there, so another boot starts afresh.
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
    """What a journal says."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[int, int]] = {}
        """Key to the parts that are there, start to end."""
        self.done: dict[str, int] = {}
        """Key to the modification time of the complete file, in nanoseconds."""

    def load(self, text: str) -> bool:
        """Note all facts of a journal, if it is of this boot of the machine.

        Returns:
            Whether it is: what another boot wrote may not have reached the disk.
        """
        lines = text.split("\n")
        if lines[0] != f"boot {boot_id()}":
            return False
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
    """Return what the journal in `directory` says, if there is one.

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
        DestinationError: Another process works there, or it cannot be written.
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
        """Append one line, and remember what it says.

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
        elif not text.endswith("\n"):
            self._append(b"\n")

    def _append(self, line: bytes) -> None:
        with writing(self._path):
            while line:  # a disk that is almost full takes a part of it and refuses the rest
                line = line[os.write(self._file, line) :]


def _lock(file: int) -> None:
    """Lock `file` for this process, unless the file system has no locks, as some network mounts."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
