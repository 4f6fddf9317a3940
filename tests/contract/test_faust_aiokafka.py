"""What the driver assumes of Faust, mode and aiokafka beyond their public interfaces.

Versions are held by pyproject.toml. When one of these fails after an upgrade, read the changed
source before touching streams/transport*.py: the message says which assumption fell.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import re
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka import codec, errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer import fetcher, subscription_state
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest
from faust.transport import consumer as faust_consumer
from faust.transport.conductor import Conductor
from faust.transport.drivers import aiokafka as driver
from mode.supervisors import SupervisorStrategy
from mode.threads import ServiceThread
from mode.utils.queues import FlowControlQueue, ThrowableQueue
from packaging.requirements import Requirement

from streams.transport_link import FENCED_INSTANCE_ID

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def source(of: Any) -> str:
    function = getattr(of, "fun", of)  # mode wraps the functions that become tasks
    return re.sub(r"\s+", " ", inspect.getsource(function))


def says(of: Any, *snippets: str) -> None:
    """The source of `of` contains each snippet, white space aside."""
    text = source(of)
    for snippet in snippets:
        assert snippet in text, (
            f"{getattr(of, 'fun', of).__qualname__} no longer says {snippet!r}; "
            f"faust-streaming {version('faust-streaming')}, aiokafka {version('aiokafka')}"
        )


def takes(function: Any, *parameters: str) -> None:
    """`function` has exactly these parameters (self aside)."""
    found = [name for name in inspect.signature(function).parameters if name != "self"]
    assert found == list(parameters), f"{function.__qualname__} now takes {found}"


@pytest.mark.parametrize("name", ["faust-streaming", "aiokafka"])
def test_installed_version_is_in_the_held_range(name: str) -> None:
    dependencies = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    (held,) = (r for r in map(Requirement, dependencies) if r.name == name)
    assert {specifier.operator for specifier in held.specifier} == {">=", "<"}
    assert held.specifier.contains(version(name)), f"{name} {version(name)} is outside {held}"


def test_the_table_manager_only_sleeps_before_what_ours_does_too() -> None:
    from faust.tables.manager import TableManager

    says(
        TableManager.on_start,
        "await self.sleep(1.0) if not self.should_stop: await self._update_channels() "
        "await self.recovery.start()",
    )
    takes(TableManager._update_channels)


def test_faust_finds_the_driver_by_scheme() -> None:
    from faust.transport.drivers import by_url

    from streams.transport import Transport

    found = [point.value for point in entry_points(group="faust.transports") if point.name == "reelflow"]
    assert found == ["streams.transport:Transport"], "reinstall the project: its entry points are stale"
    assert by_url("reelflow://127.0.0.1:9092") is Transport


@pytest.mark.parametrize(
    ("cls", "method", "parameters"),
    [
        (driver.Consumer, "_new_consumer_thread", ()),
        (driver.Consumer, "_to_message", ("tp", "record")),
        (driver.Consumer, "verify_event_path", ("now", "tp")),
        (driver.Consumer, "on_buffer_full", ("tp",)),
        (driver.Consumer, "on_buffer_drop", ("tp",)),
        (driver.Consumer, "on_task_error", ("exc",)),
        (driver.Consumer, "on_partitions_assigned", ("assigned", "generation_id")),
        (driver.Consumer, "on_partitions_revoked", ("revoked",)),
        (driver.Consumer, "seek_to_committed", ()),
        (driver.Consumer, "_getmany", ("active_partitions", "timeout")),
        (driver.AIOKafkaConsumerThread, "__post_init__", ()),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ("transport",)),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer", ()),
        (
            driver.AIOKafkaConsumerThread,
            "_fetch_records",
            ("consumer", "active_partitions", "timeout", "max_records"),
        ),
        (faust.Topic, "_clone_args", ()),
        (
            faust.Schema,
            "compile",
            ("app", "on_key_decode_error", "on_value_decode_error", "default_propagate"),
        ),
        (faust.App, "on_init_dependencies", ()),
        (faust.App, "on_first_start", ()),
        (SupervisorStrategy, "restart_services", ("services",)),
        (FetchResult, "check_assignment", ("tp",)),
        (FetchResult, "getall", ("max_records",)),
        (FetchResult, "has_more", ()),
        (FetchResult, "_update_position", ()),
        (fetcher.FetchError, "check_raise", ()),
        (PartitionRecords, "_consumer_record", ("tp", "record")),
        (PartitionRecords, "_unpack_records", ()),
        (fetcher.Fetcher, "_create_fetch_waiter", ()),
        (fetcher.Fetcher, "_notify", ("future",)),
        (subscription_state.SubscriptionState, "fetch_context", ()),
        (subscription_state.SubscriptionState, "wait_for_assignment", ()),
        (subscription_state.SubscriptionState, "is_assigned", ("tp",)),
    ],
)
def test_methods_keep_their_parameters(cls: Any, method: str, parameters: tuple[str, ...]) -> None:
    takes(getattr(cls, method), *parameters)


def test_consumer_settings_are_read_when_the_consumer_starts() -> None:
    """They are changed between the constructor and start()."""
    says(aiokafka.AIOKafkaConsumer.__init__, "self._fetch_max_wait_ms = fetch_max_wait_ms")
    says(aiokafka.AIOKafkaConsumer.__init__, "self._isolation_level = isolation_level")
    says(
        aiokafka.AIOKafkaConsumer.start,
        "self._fetcher = Fetcher(",
        "fetch_max_wait_ms=self._fetch_max_wait_ms",
        "isolation_level=self._isolation_level",
    )
    says(driver.AIOKafkaConsumerThread.on_start, "self._create_consumer(", "await self._consumer.start()")


def test_the_fetcher_keeps_one_result_a_partition() -> None:
    says(
        fetcher.Fetcher.__init__,
        "self._records = collections.OrderedDict()",
        "self._wait_consume_future = None",
    )
    says(
        fetcher.Fetcher.fetched_records,
        "if type(res_or_error) is FetchResult",
        "del self._records[tp]",
        "self._notify(self._wait_consume_future)",
        "res_or_error.check_raise()",
    )
    says(
        fetcher.Fetcher._fetch_requests_routine, "for waiter in self._fetch_waiters: # we added some messages"
    )
    says(fetcher.Fetcher._proc_fetch_request, "tp_state.position != fetch_offset")
    says(FetchResult.check_assignment, "position != self._partition_records.next_fetch_offset")
    says(FetchResult._update_position, "consumed_to(self._partition_records.next_fetch_offset)")
    says(FetchResult.has_more, "return self._partition_records is not None")


def test_a_fetched_message_set_is_in_the_answer_and_is_read_from_the_asked_offset() -> None:
    """The driver reads the same bytes itself, and keeps aiokafka's position in step."""
    says(
        fetcher.Fetcher._proc_fetch_request,
        "for topic, partitions in request.topics: for partition, offset, _ in partitions:",
        "for partition, error_code, highwater, *part_data in partitions:",
        "records = MemoryRecords(part_data[-1])",
        "tp, records, aborted_transactions, fetch_offset,",
    )
    says(
        PartitionRecords.__init__,
        "self._aborted_transactions = sorted( aborted_transactions or [], key=lambda x: x[1] )",
        "self.next_fetch_offset = fetch_offset",
    )
    request = FetchRequest(1, 1, 1, fetcher.READ_COMMITTED, [("t", [(0, 7, 1)])])
    assert list(request.topics) == [("t", [(0, 7, 1)])]
    says(aiokafka.AIOKafkaConsumer.__init__, "self._fetch_max_bytes = fetch_max_bytes")
    says(aiokafka.AIOKafkaConsumer.start, "fetch_max_bytes=self._fetch_max_bytes")
    for name in ("gzip", "snappy", "lz4", "zstd"):
        takes(getattr(codec, f"{name}_decode"), "payload")


def test_aborted_records_and_markers_are_told_apart_as_we_do() -> None:
    says(
        PartitionRecords._unpack_records,
        "self._consume_aborted_up_to(next_batch.base_offset)",
        "self._aborted_producers.discard(next_batch.producer_id)",
        "next_batch.is_transactional and next_batch.producer_id in self._aborted_producers",
        "if next_batch.is_control_batch: self.next_fetch_offset = next_batch.next_offset continue",
    )
    says(PartitionRecords._consume_aborted_up_to, "if first_offset <= batch_offset:")


def test_records_are_unpacked_lazily_through_an_instance_lookup() -> None:
    """The driver sets `_consumer_record` on the instance before the first record is taken."""
    says(PartitionRecords.__init__, "self._records_iterator = self._unpack_records()")
    says(
        PartitionRecords._unpack_records,
        "consumer_record = self._consumer_record(tp, record)",
        "self.next_fetch_offset = record.offset + 1 yield consumer_record",
        "self.next_fetch_offset = next_batch.next_offset",
    )
    assert inspect.isgeneratorfunction(PartitionRecords._unpack_records)
    from aiokafka.record import default_records

    for name in ("offset", "timestamp", "key", "value"):
        assert hasattr(default_records.DefaultRecord, name), f"DefaultRecord lost {name}"


def test_every_codec_that_producers_use_can_be_read() -> None:
    missing = [name for name in ("gzip", "snappy", "lz4", "zstd") if not getattr(codec, f"has_{name}")()]
    assert not missing, f"aiokafka cannot read {missing}: cramjam is not installed"


def test_the_poll_timer_is_touched_by_an_empty_fetch_context() -> None:
    async def main() -> None:
        state = subscription_state.SubscriptionState()
        state._last_fetch_ended -= 1000.0
        assert state.fetcher_idle_time >= 1000.0
        with state.fetch_context():
            assert state.fetcher_idle_time == 0
        assert state.fetcher_idle_time < 100.0

    asyncio.run(main())
    says(GroupCoordinator._heartbeat_routine, "idle_time < self._max_poll_interval", "_maybe_leave_group()")
    assert "self._subscription = " in source(aiokafka.AIOKafkaConsumer.__init__)


def test_positions_are_set_after_a_rebalance_and_before_the_flow() -> None:
    from faust.tables.recovery import Recovery

    text = source(Recovery._resume_streams)
    assert text.index("consumer.perform_seek()") < text.index("consumer.resume_flow()")
    assert text.index("consumer.perform_seek()") < text.index("_fetcher.maybe_start()")
    says(faust_consumer.Consumer.perform_seek, "_committed_offsets = await self.seek_to_committed()")
    says(faust.App._on_partitions_revoked, "consumer.stop_flow")
    # A rebalance while positions are looked up ends in this error, and Faust waits for the next.
    says(Recovery._restart_recovery, "except IllegalStateError")


def test_every_request_of_the_consumer_goes_through_its_clients_send() -> None:
    """The link stands there; metadata alone is asked for elsewhere."""
    takes(AIOKafkaClient.send, "node_id", "request", "group")
    says(fetcher.Fetcher._proc_fetch_request, "await self._client.send(node_id, request)")
    says(GroupCoordinator._send_req, "await self._client.send(", "except Errors.KafkaError")
    says(aiokafka.AIOKafkaConsumer.__init__, "self._client = AIOKafkaClient(")


def test_static_members_are_fenced_by_us_alone() -> None:
    """aiokafka forgets the member's id, joins as a stranger, and has no class for the error."""
    assert errors.for_code(FENCED_INSTANCE_ID) is errors.UnknownError
    assert errors.UnknownMemberIdError.errno == 25
    says(GroupCoordinator._do_heartbeat, "HeartbeatRequest(self.group_id, self.generation, self.member_id)")
    says(GroupCoordinator.reset_generation, "self.member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID")
    says(GroupCoordinator._maybe_leave_group, "self._group_instance_id is None")
    says(
        CoordinatorGroupRebalance.perform_group_join,
        "self._coordinator.member_id, self._coordinator._group_instance_id,",
        "raise Errors.KafkaError(repr(err))",
    )
    says(driver.AIOKafkaConsumerThread._create_worker_consumer, "group_instance_id=conf.consumer_group_inst")
    assert JoinGroupRequest.UNKNOWN_MEMBER_ID == ""
    request = copy.copy(JoinGroupRequest("group", 1, 2, "", "name", "consumer", []))
    request._member_id = "known"
    newest = JoinGroupRequest._CLASSES[-1]
    assert request.build(newest).member_id == "known"


def test_a_paused_partition_is_neither_fetched_nor_delivered() -> None:
    """That is how partitions are held while their state loads; Faust itself never pauses there."""
    says(
        fetcher.Fetcher._get_actions_per_node,
        "elif not tp_state.has_valid_position:",
        "elif tp_state.paused: resume_futures.append(tp_state.resume_fut)",
    )
    says(FetchResult.check_assignment, "if tp_state.paused: return_result = False")
    assert ".pause(" not in source(faust_consumer.Consumer.pause_partitions)
    assert ".resume(" not in source(faust_consumer.Consumer.resume_partitions)


def test_errors_of_the_callbacks_are_swallowed_by_aiokafka() -> None:
    """So the driver crashes the app itself."""
    says(GroupCoordinator._on_join_complete, "except Exception: log.exception(")
    says(GroupCoordinator._on_join_prepare, "except Exception: log.exception(")


def test_the_drain_loop_compares_offsets_with_the_position() -> None:
    says(
        faust_consumer.Consumer._drain_messages,
        "if r_offset is None or offset >= r_offset",
        "acks_enabled = acks_enabled_for(message.topic) if acks_enabled:",
        "set_read_offset = self._read_offset.__setitem__",
        "set_read_offset(tp, offset)",
    )
    says(faust_consumer.Consumer.getmany, "yield tp, to_message(tp, record)")
    says(faust_consumer.Consumer._wait_next_records, "await self._getmany(")


def test_topics_without_acks_are_neither_committed_nor_waited_for() -> None:
    says(Conductor._update_indices, "if channel.acks: self._acking_topics.add(topic)")
    says(faust_consumer.Consumer.ack, "if self.app.topics.acks_enabled_for(message.topic)")


def test_agents_report_errors_to_the_consumer_and_then_to_their_supervisor() -> None:
    says(faust.App._on_agent_error, "await self._consumer.on_task_error(exc)")
    says(faust.Agent._execute_actor, "await self._on_error(self, exc)", "self.supervisor.wakeup()")
    says(SupervisorStrategy._supervisor, "await self.restart_services(to_restart)")


def test_queues_take_through_the_hook_of_asyncio() -> None:
    says(asyncio.Queue.get_nowait, "self._get()")
    says(FlowControlQueue.get, "await super().get()")
    takes(ThrowableQueue.__init__, "args", "kwargs")
    says(faust.Channel.clone, "subchannel.queue")
    assert isinstance(inspect.getattr_static(faust.Channel, "queue"), property)
    says(Conductor.on_partitions_assigned, "self._update_tp_index")


def test_threads_have_their_own_loop_and_know_their_parent() -> None:
    says(ServiceThread.__init__, "self.parent_loop = ", "self.thread_loop = ")
    says(ServiceThread._serve, "await self._gather_remaining_tasks()")


def test_messages_take_their_fields_in_this_order() -> None:
    from faust.types.tuples import Message

    takes(
        Message.__init__,
        *("topic", "partition", "offset", "timestamp", "timestamp_type", "headers", "key", "value"),
        *("checksum", "serialized_key_size", "serialized_value_size", "tp", "time_in", "time_out"),
        *("time_total", "generation_id"),
    )


def test_the_app_is_run_without_web_logging_and_folders() -> None:
    from mode import Worker

    assert "override_logging" in inspect.signature(Worker.__init__).parameters
    says(Worker._shutdown_loop, "raise self.crash_reason from self.crash_reason")
    says(faust.App.on_first_start, "self._create_directories()")
    assert source(faust.App.on_first_start).count("(") == 2, "on_first_start now does more than folders"
    app: Any = SimpleNamespace(conf=SimpleNamespace(web_enabled=False))
    assert not faust.app.base.BootStrategy(app)._should_enable_web()
