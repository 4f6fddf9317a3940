class Coordinate:
    def __init__(
        self, groupId: str, artifactId: str, version: str | None = None, *, scope: str | None = None
    ) -> None: ...
