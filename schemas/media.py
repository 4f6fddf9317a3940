"""Media of an item: modalities, and why a file of one may be refused."""

from __future__ import annotations

from typing import Final, Literal, get_args

Modality = Literal["text", "image", "audio", "video"]
"""What an encoder reads. The sound track of a video is `audio`."""

MediaModality = Literal["image", "audio", "video"]
"""Modalities that come as files."""

MediaReason = Literal[
    "not_found",  # no such file, object, host or page
    "permission",  # it is there, and may not be read
    "unreadable",  # reading it fails, or its decoder says that it is damaged
    "unreachable",  # the server refuses, resets or answers 5xx
    "host_not_allowed",  # not on the list of hosts
    "path_not_allowed",  # outside the folders, or of a scheme that is not listed
    "private_address",  # the name leads to an address that is not public
    "slow_server",  # fetching took longer than allowed
    "empty",  # no bytes, or nothing in it (no frame, no sample)
    "too_large",  # more bytes than allowed, packed or unpacked
    "too_many_pixels",
    "too_long",  # plays longer than allowed
    "truncated",  # ends before its own headers say
    "wrong_type",  # is not what its extension or its modality says
    "unsupported",  # of a kind, or with a property, that we do not decode
    "timeout",  # decoding took longer than allowed
    "memory",  # decoding needs more memory than allowed
    "crashed",  # the decoder's process died of it
]
REASONS: Final[tuple[MediaReason, ...]] = get_args(MediaReason)

RETRIABLE: Final[frozenset[MediaReason]] = frozenset({"unreachable", "slow_server"})
"""Reasons that may be gone at the next attempt without anyone acting."""
