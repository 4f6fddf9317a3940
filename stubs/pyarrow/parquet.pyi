from pathlib import Path
from typing import Any

from . import Table

def read_table(source: Any, *, columns: list[str] | None = ...) -> Table: ...
def write_table(
    table: Table,
    where: str | Path,
    *,
    compression: str = ...,
    compression_level: int | None = ...,
    use_dictionary: bool | list[str] = ...,
    column_encoding: dict[str, str] | None = ...,
    store_schema: bool = ...,
) -> None: ...
