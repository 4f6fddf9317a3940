"""Apache Kafka's jars: pinned by checksum, fetched once from Maven Central, checked before every start.

``broker_jars.sha256`` beside this module lists every jar as ``sha256  path in a Maven repository``,
so nothing is resolved on a user's machine: jgo fetches exactly these files. Maintainers write that
list again, after changing `KAFKA_VERSION`, with ``python -m streams.broker_install``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import structlog

from schemas.errors import BrokerError

from .context import home_dir

log = structlog.get_logger(__name__)

KAFKA_VERSION = "4.3.1"
SLF4J_VERSION = "1.7.36"
CHECKSUMS = "broker_jars.sha256"
DOWNLOADS = 6  # parallel; more gains nothing on 2 cores
ATTEMPTS = 3


class Jar(NamedTuple):
    """One pinned jar."""

    sha256: str
    path: PurePosixPath  # in a Maven repository: group as folders, artifact, version, file

    @property
    def name(self) -> str:
        """Its file name."""
        return self.path.name

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Group, artifact and version.

        >>> Jar("", PurePosixPath("org/slf4j/slf4j-api/1.7.36/slf4j-api-1.7.36.jar")).coordinate
        ('org.slf4j', 'slf4j-api', '1.7.36')
        """
        *group, artifact, version, _ = self.path.parts
        return ".".join(group), artifact, version


def pinned_jars() -> tuple[Jar, ...]:
    """The jars that make up the broker, in the order of the list."""
    text = resources.files("streams").joinpath(CHECKSUMS).read_text(encoding="ascii")
    pairs = (line.split() for line in text.splitlines())
    return tuple(Jar(sha256, PurePosixPath(path)) for sha256, path in pairs)


def jars_dir(home: Path | None = None) -> Path:
    """Where the jars of `KAFKA_VERSION` are kept."""
    return (home or home_dir()) / "kafka" / KAFKA_VERSION


def faults(folder: Path) -> list[str]:
    """What distinguishes `folder` from the pinned jars: missing, altered or additional files.

    Reads every byte: about 0.2 s.
    """
    wanted = {jar.name: jar.sha256 for jar in pinned_jars()}
    found = {path.name: path for path in folder.iterdir()} if folder.is_dir() else {}
    missing = [f"{name} is missing" for name in wanted if name not in found]
    extra = [f"{name} does not belong there" for name in found if name not in wanted]
    altered = [
        f"{name} has another checksum"
        for name, sha256 in wanted.items()
        if name in found and _sha256(found[name]) != sha256
    ]
    return missing + extra + altered


def install(home: Path | None = None) -> Path:
    """Folder with the verified jars; fetches them when they are missing or altered.

    Safe to call from several processes at once: the first one fetches, the others wait for it.
    A jar that the user's Maven repository already has, with the right checksum, is copied from there.

    Parameters
    ----------
    home : Path, optional
        Cache folder; ``REELFLOW_HOME`` or the user's cache folder by default.

    Raises
    ------
    BrokerError
        When a jar cannot be fetched (no network on first use), or what was fetched is not what is pinned.
    """
    target = jars_dir(home)
    if target.is_dir() and not faults(target):
        return target
    try:
        with _locked(target.parent):
            found = faults(target)  # another process may have installed while we waited
            if not found:
                return target
            if target.exists():
                log.warning("broker_jars_damaged", folder=str(target), faults=found[:3])
                shutil.rmtree(target)
            _fetch_all(target)
    except OSError as error:
        raise BrokerError(f"cannot keep the jars of Apache Kafka in {target}: {error}") from None
    return target


def _fetch_all(target: Path) -> None:
    downloads = target.parent / "downloads"  # kept when interrupted, so that the next try goes on from there
    jars = pinned_jars()
    log.info("broker_jars_fetching", kafka=KAFKA_VERSION, jars=len(jars), folder=str(target))
    partial = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        with ThreadPoolExecutor(DOWNLOADS, thread_name_prefix="jars") as pool:
            futures = [pool.submit(_fetch, jar, downloads, partial / jar.name) for jar in jars]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if found := faults(partial):
            raise BrokerError(f"the jars of Apache Kafka are not as pinned: {'; '.join(found)}")
        partial.chmod(0o755)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(downloads, ignore_errors=True)


def _fetch(jar: Jar, downloads: Path, target: Path) -> None:
    """Copy one jar to `target`, from the user's Maven repository or the network."""
    from jgo.constants import default_maven_repo
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    own = default_maven_repo() / jar.path
    if own.is_file() and _sha256(own) == jar.sha256:
        shutil.copyfile(own, target)
        return
    artifact = MavenContext(repo_cache=downloads).create_dependency(Coordinate(*jar.coordinate)).artifact
    cause = "?"
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(attempt)  # the repository, or the way to it, may need a moment
        try:
            path = artifact.resolve()
        except (OSError, RuntimeError) as error:
            cause = str(error)
            continue
        if _sha256(path) == jar.sha256:
            shutil.copyfile(path, target)
            return
        path.unlink()  # an interrupted download looks complete to jgo
        cause = "its checksum differs from the pinned one"
    raise BrokerError(
        f"cannot fetch {jar.name} of Apache Kafka {KAFKA_VERSION} from Maven Central: {cause}. "
        "The first start of the local broker needs the network (or the jars in the user's Maven repository)."
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(folder / "install.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checksums(target: Path) -> int:
    """Resolve `KAFKA_VERSION` afresh and write the list of its jars; returns how many there are."""
    from jgo.maven import MavenContext
    from jgo.parse import Coordinate

    roots = (("org.apache.kafka", "kafka_2.13", KAFKA_VERSION), ("org.slf4j", "slf4j-simple", SLF4J_VERSION))
    with tempfile.TemporaryDirectory() as folder:
        context = MavenContext(repo_cache=Path(folder))
        wanted = [context.create_dependency(Coordinate(*root, scope="compile")) for root in roots]
        inputs, transitive = context.resolver.resolve(wanted)
        lines = set()
        for dependency in (*inputs, *transitive):
            if dependency.scope in {"compile", "runtime"}:
                path = dependency.artifact.resolve()
                lines.add(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}")
    ordered = sorted(lines, key=lambda line: line.split()[1])
    target.write_text("\n".join(ordered) + "\n", encoding="ascii")
    return len(ordered)


if __name__ == "__main__":
    print(write_checksums(Path(__file__).with_name(CHECKSUMS)), "jars")
