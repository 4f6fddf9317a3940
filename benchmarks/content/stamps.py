"""Pictures with titles in two languages, some with a sound: Debian's tuxpaint-stamps-default (GPL-2).

950 drawings and photographs in a tree of folders; those under `symbols` (letters, digits, coins) are left
out, of the rest the topmost folder is the class. Fetched by apt into a folder outside the repository.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec import Struct

PACKAGE = "tuxpaint-stamps-default"
_TREE = Path("usr/share/tuxpaint/stamps")
_LEFT_OUT = "symbols"
_CHINESE = "zh_CN.utf8="

CLASS_WORDS = {"naturalforces": "natural forces"}
"""Names of folders that are no words."""


class Stamp(Struct, frozen=True):
    """One item."""

    name: str
    tag: str
    title: str
    title_zh: str
    picture: Path | None
    sound: Path | None


def fetch_stamps(cache: Path) -> Path:
    """Download and unpack the package unless that was done; the tree of stamps."""
    tree = cache / "stamps" / _TREE
    if not tree.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        if not list(cache.glob(f"{PACKAGE}*.deb")):
            subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        (package,) = cache.glob(f"{PACKAGE}*.deb")
        subprocess.run(["dpkg", "-x", package.name, "stamps"], cwd=cache, check=True)
    return tree


def read_stamps(tree: Path) -> list[Stamp]:
    """All stamps, in the order of their names."""
    stamps = []
    for file in sorted(tree.rglob("*.txt")):
        name = file.relative_to(tree).with_suffix("")
        if name.parts[0] == _LEFT_OUT:
            continue
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        stamps.append(
            Stamp(
                name=str(name),
                tag=name.parts[0],
                title=lines[0].strip() if lines else "",
                title_zh=next((x.removeprefix(_CHINESE) for x in lines if x.startswith(_CHINESE)), ""),
                picture=_beside(file, ".png"),
                sound=_beside(file, ".ogg", ".wav"),
            )
        )
    return stamps


def _beside(file: Path, *suffixes: str) -> Path | None:
    return next((path for suffix in suffixes if (path := file.with_suffix(suffix)).is_file()), None)
