from pathlib import Path

from jgo.parse import Coordinate

class Artifact:
    groupId: str
    artifactId: str
    version: str
    filename: str
    def resolve(self) -> Path: ...

class Dependency:
    artifact: Artifact
    scope: str | None

class Resolver:
    def resolve(self, dependencies: list[Dependency]) -> tuple[list[Dependency], list[Dependency]]: ...

class MavenContext:
    resolver: Resolver
    repo_cache: Path
    def __init__(self, *, repo_cache: Path | None = None, timeout: int = 10) -> None: ...
    def create_dependency(self, coordinate: Coordinate | str) -> Dependency: ...
