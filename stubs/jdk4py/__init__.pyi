from pathlib import Path

JAVA: Path
JAVA_HOME: Path
JAVA_VERSION: tuple[int, int, int]
