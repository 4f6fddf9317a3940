"""A sound file, or the sound track of a video, as segments of one mono waveform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from schemas.errors import MediaError

from .decoded import Float32, Sound
from .extra import extra
from .ffmpeg import is_end, open_container, refusal
from .kinds import SOUND_FILES
from .lengths import check_length
from .limits import Form, MediaLimits
from .waveforms import normalise_loudness, segments_of, trim_silence

with extra():
    import av
    import soundfile
    import soxr

MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_CHANNELS = 16
BLOCK_FRAMES = 1 << 16
MISSING_RATIO = 0.05
"""Of what the headers promise; more makes a file truncated."""


def decode_audio(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> Sound:
    """Decode, mix down, resample, normalise the loudness, trim silence, take segments.

    Raises
    ------
    MediaError
        too_long, truncated, unreadable, unsupported, empty (no track, no sample, or silence only), memory.
    """
    check_length(file, kind)
    if kind in SOUND_FILES:
        try:
            return _finish(_sound_file(file, limits), form)
        except soundfile.LibsndfileError as error:
            file.seek(0)
            if kind not in {"mp3", "ogg"}:  # FFmpeg reads what libsndfile does not: Speex, odd MP3
                raise MediaError("unreadable", str(error)) from error
    with open_container(file, kind) as container:
        return _finish(_track(container, limits.max_audio_s), form)


def sound_of(file: BinaryIO, kind: str, limits: MediaLimits, form: Form) -> Sound:
    """The sound track of a video that was checked; `MediaError` as `decode_audio`."""
    file.seek(0)
    with open_container(file, kind) as container:
        return _finish(_track(container, limits.max_video_s), form)


def _finish(parts: Iterator[tuple[int, Float32]], form: Form) -> Sound:
    """Mono parts with their sample rate as a sound."""
    rate, first = next(parts, (0, np.zeros(0, dtype=np.float32)))
    if not rate:
        raise MediaError("empty", "no sample")
    n_samples = 0

    def counted() -> Iterator[Float32]:
        nonlocal n_samples
        for part in _chain(first, parts):
            n_samples += len(part)
            yield part

    wave = _resampled(counted(), rate, form.sample_rate)
    if not np.isfinite(wave).all():
        raise MediaError("unreadable", "samples that are no numbers")
    duration_s = n_samples / rate
    wave -= wave.mean(dtype=np.float64) if len(wave) else 0.0  # an offset is not loud
    wave = trim_silence(normalise_loudness(wave, form.sample_rate), form.sample_rate)
    if not len(wave):
        raise MediaError("empty", "silence only" if n_samples else "no sample")
    segments = segments_of(wave, form.sample_rate, form.segments, form.segment_s)
    return Sound(segments, form.sample_rate, duration_s)


def _chain(first: Float32, parts: Iterator[tuple[int, Float32]]) -> Iterator[Float32]:
    yield first
    for _, part in parts:
        yield part


def _resampled(parts: Iterable[Float32], rate: int, target: int) -> Float32:
    """One waveform at the `target` rate."""
    if rate == target:
        return np.concatenate(list(parts))
    stream = soxr.ResampleStream(rate, target, 1, dtype="float32", quality="HQ")
    pieces = [stream.resample_chunk(part) for part in parts]
    pieces.append(stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True))
    return np.concatenate(pieces)


def check_sound(rate: int, channels: int, duration_s: float, max_s: float) -> None:
    """Raise `MediaError` for properties that are not decoded."""
    if not MIN_RATE <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
        raise MediaError("unsupported", f"{channels} channels at {rate} Hz")
    if duration_s > max_s:
        raise MediaError("too_long", f"{duration_s:.0f} s, {max_s:.0f} allowed")


def _sound_file(file: BinaryIO, limits: MediaLimits) -> Iterator[tuple[int, Float32]]:
    """Mono blocks through libsndfile."""
    with soundfile.SoundFile(file) as sound:
        rate = sound.samplerate
        check_sound(rate, sound.channels, sound.frames / max(rate, 1), limits.max_audio_s)
        n_read = 0
        while len(block := _block(sound, n_read)):
            n_read += len(block)
            check_sound(rate, sound.channels, n_read / rate, limits.max_audio_s)  # headers may lie
            yield rate, block.mean(axis=1, dtype=np.float32)
        if n_read < sound.frames * (1 - MISSING_RATIO):
            raise MediaError("truncated", f"{n_read} of {sound.frames} samples")


def _block(sound: soundfile.SoundFile, n_read: int) -> Float32:
    """The next samples, (n, channels)."""
    try:
        block: Float32 = sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:  # how it finds the end of a file that was cut within a frame
        raise MediaError("truncated", f"at {n_read} of {sound.frames} samples: {error}") from error
    return block


def _track(container: av.container.InputContainer, max_s: float) -> Iterator[tuple[int, Float32]]:
    """Mono blocks of the first sound track through FFmpeg."""
    if not container.streams.audio:
        raise MediaError("empty", "no sound track")
    stream = container.streams.audio[0]
    rate = stream.rate or 0
    promised_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    check_sound(rate, stream.channels, promised_s, max_s)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    n_read = 0
    try:
        for frame in container.decode(stream):
            for mono in resampler.resample(frame):
                block = mono.to_ndarray()[0]
                n_read += len(block)
                check_sound(rate, 1, n_read / rate, max_s)
                yield rate, block
    except av.FFmpegError as error:
        if not is_end(error):
            raise refusal(error) from error
    if n_read < promised_s * rate * (1 - MISSING_RATIO) - rate * 0.1:
        raise MediaError("truncated", f"{n_read / rate:.1f} of {promised_s:.1f} s")
