"""A root file system of the packages that this machine has installed, for images.

Debian's and Ubuntu's only. It takes files as they lie here, so it needs seconds and no network;
what is for people to read is left out.
"""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

_LEFT_OUT = re.compile(r"/usr/share/(doc|man|locale|info|lintian|bash-completion|zoneinfo)/.")
_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_FOLDERS = {"dev": 0o755, "proc": 0o555, "run": 0o755, "sys": 0o555, "tmp": 0o1777, "root": 0o755}
_FOLDERS |= {"etc": 0o755, "home": 0o755, "usr": 0o755, "var": 0o755, "var/tmp": 0o1777}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


class PackagesError(Exception):
    """The packages cannot be taken from this machine, and why."""


def write_root(path: Path, packages: Iterable[str], trees: Iterable[Path] = ()) -> None:
    """Write a layer with `packages` and what they depend on.

    Args:
        path: The tar file.
        packages: Names of installed packages.
        trees: Folders of theirs of which everything is taken, compiled Python too.

    Raises:
        PackagesError: This is no Debian, or a package is not installed.
    """
    names = sorted(_closure(packages))
    listed = _output("dpkg-query", "--listfiles", *names).splitlines()
    files = {Path(line) for line in listed if line.startswith("/") and not _LEFT_OUT.match(line)}
    for tree in trees:
        files |= {each for each in tree.rglob("*") if "/test/" not in str(each)}
    with tarfile.open(path, "w") as archive:
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            archive.addfile(folder)
        _add_texts(archive, _FILES)
        seen = {*_LINKS, *_FOLDERS, *_FILES}
        for place, file in sorted(_placed(files)):
            if place not in seen:
                seen.add(place)
                archive.add(file, arcname=place, recursive=False)


def _placed(files: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Return where each file goes: what packages call /bin/sh lies in /usr/bin."""
    for file in files:
        first, slash, rest = str(file).lstrip("/").partition("/")
        if file.exists() or file.is_symlink():
            yield (f"{_LINKS.get(first, first)}{slash}{rest}", file)


def _add_texts(archive: tarfile.TarFile, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(text), 0o644
        archive.addfile(member, io.BytesIO(text.encode()))


def _closure(packages: Iterable[str]) -> set[str]:
    needs, providers = _installed()
    names: set[str] = set()
    ahead = list(packages)
    while ahead:
        name = ahead.pop()
        name = name if name in needs else providers.get(name, "")
        if not name or name in names:
            continue
        names.add(name)
        # alternatives ("awk | mawk"): those that are installed
        ahead += needs[name]
    absent = [name for name in packages if name not in names]
    if absent:
        raise PackagesError(f"not installed: {', '.join(absent)}")
    return names


def _installed() -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return what each installed package depends on, and who provides each virtual one."""
    fields = "${Package}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n"
    needs: dict[str, list[str]] = {}
    providers: dict[str, str] = {}
    for line in _output("dpkg-query", "--show", f"--showformat={fields}").splitlines():
        name, state, depends, provides = line.split("\t")
        if state == "installed":
            needs[name] = _names(depends)
            providers.update(dict.fromkeys(_names(provides), name))
    return needs, providers


def _names(field: str) -> list[str]:
    """Return the packages of a field such as `libc6 (>= 2.36), awk | mawk, python3:any`."""
    words = [re.sub(r"\(.*?\)", "", word).strip() for word in re.split(r"[,|]", field)]
    return [word.partition(":")[0] for word in words if word]


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise PackagesError(
            f"{command[0]} is not here: this is neither Debian nor Ubuntu"
        ) from None
    except subprocess.CalledProcessError as error:
        raise PackagesError(error.stderr.strip()) from None
