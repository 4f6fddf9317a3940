from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

class ConfigResource:
    def __init__(
        self, resource_type: str, name: str, configs: Sequence[str] | Mapping[str, str] | None = None
    ) -> None: ...

class MemberToRemove:
    def __init__(
        self, *, member_id: str | None = None, group_instance_id: str | None = None, reason: str | None = None
    ) -> None: ...

class KafkaAdminClient:
    _closed: bool
    def __init__(self, **configs: Any) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def alter_configs(
        self,
        config_resources: Sequence[ConfigResource],
        validate_only: bool = False,
        raise_on_unknown: bool = True,
        incremental: bool | None = None,
    ) -> dict[str, Any]: ...
    def close(self) -> None: ...
    def create_topics(
        self,
        new_topics: Mapping[str, Mapping[str, Any]],
        timeout_ms: int | None = None,
        validate_only: bool = False,
        raise_errors: bool = True,
        wait_for_metadata: bool = False,
    ) -> dict[str, Any]: ...
    def delete_topics(
        self, topics: Sequence[str], timeout_ms: int | None = None, raise_errors: bool = True
    ) -> dict[str, Any]: ...
    def describe_cluster(self) -> dict[str, Any]: ...
    def describe_configs(
        self,
        config_resources: Sequence[ConfigResource],
        include_synonyms: bool = False,
        config_filter: str = "modified",
    ) -> dict[str, dict[str, dict[str, dict[str, Any]]]]: ...
    def describe_topics(self, topics: Sequence[str] | None = None) -> list[dict[str, Any]]: ...
    def list_topics(self) -> list[str]: ...
    def remove_group_members(self, group_id: str, members: Sequence[MemberToRemove]) -> dict[Any, Any]: ...
    def wait_for_topics(self, topic_names: Sequence[str], timeout_ms: int = 10000) -> None: ...
