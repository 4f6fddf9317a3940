"""The one error tree.

::

    ReelflowError
    ├── ConfigurationError      a setting is wrong; names it               not retriable
    ├── ContractError           bytes that break a public contract         not retriable
    ├── BrokerError             the local broker could not be run          not retriable
    ├── TopicError              topics missing or configured differently   not retriable
    ├── UnavailableError        a peer (broker, worker) does not answer    retriable
    ├── SourceError             a data set cannot be read                  not retriable
    ├── ExtraError              packages of an extra are not installed     not retriable
    ├── MediaError              a medium is refused; says for what reason  by reason
    ├── StoreError              a store of state cannot be read or written retriable
    │   ├── ExistsError         an exclusive create came second            not retriable
    │   └── MissingError        there is nothing of that name              not retriable
    └── StateError              learned state cannot be used               not retriable
        ├── DamagedError        stored bytes are not what was written      not retriable
        ├── OwnedError          another process is the state's writer      not retriable
        └── FencedError         another process has become its writer      not retriable

Control-flow signals stay outside this tree.
"""

from __future__ import annotations

from .media import RETRIABLE, MediaReason


class ReelflowError(Exception):
    """Base of every error reelflow raises on purpose.

    Attributes
    ----------
    retriable : bool
        Whether the same call may succeed later without anyone acting.
    """

    retriable: bool = False


class ConfigurationError(ReelflowError):
    """A setting is missing, unknown or out of range.

    Operator action: correct the setting named in the message.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"setting {setting}: {message}")
        self.setting = setting


class ContractError(ReelflowError):
    """A value breaks a public contract; `field` names where."""

    def __init__(self, message: str, *, reason: str, field: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


class BrokerError(ReelflowError):
    """The local broker could not be installed, started or stopped.

    Operator action: the message says what to change.
    """


class TopicError(ReelflowError):
    """Topics are missing or differ from their contract.

    Operator action: run ``reelflow topics check`` and correct what it lists.
    """


class UnavailableError(ReelflowError):
    """A peer does not answer (yet)."""

    retriable = True


class SourceError(ReelflowError):
    """A data set cannot be read; the message names file and row."""


class ExtraError(ReelflowError):
    """Packages are missing that only an extra of the distribution brings.

    Operator action: install the extra named in the message.
    """

    def __init__(self, extra: str, missing: str) -> None:
        super().__init__(f"{missing} is not installed: pip install 'reelflow[{extra}]'")
        self.extra = extra
        self.missing = missing


class MediaError(ReelflowError):
    """A picture, sound or video is refused; `reason` is one of `schemas.media.MediaReason`."""

    def __init__(self, reason: MediaReason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.retriable = reason in RETRIABLE


class StoreError(ReelflowError):
    """A store of state could not be read or written: no space, no connection, no permission.

    Operator action: see to the cause that the message ends in; what was stored before is whole.
    """

    retriable = True


class ExistsError(StoreError):
    """There is something of that name already."""

    retriable = False


class MissingError(StoreError):
    """There is nothing of that name."""

    retriable = False


class StateError(ReelflowError):
    """Learned state cannot be used (version, shape or digest)."""


class DamagedError(StateError):
    """Stored bytes are torn, missing or changed.

    Operator action: none where the previous checkpoint is used; else ``reelflow checkpoint verify``.
    """


class OwnedError(StateError):
    """A living process is the writer of this state.

    Operator action: stop it, or start with ``--take-over``, which ends it.
    """


class FencedError(StateError):
    """Another process has taken this one's state over; what it still does must not count.

    Operator action: none if that was meant; otherwise stop one of the two.
    """
