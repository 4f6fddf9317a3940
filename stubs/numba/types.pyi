from typing import Any

int64: Any

def void(*args: Any) -> Any: ...
