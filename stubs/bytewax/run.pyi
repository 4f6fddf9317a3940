from datetime import timedelta

from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig

def cli_main(
    flow: Dataflow, *, epoch_interval: timedelta | None = None, recovery_config: RecoveryConfig | None = None
) -> None: ...
