"""Models saved to disk by the test itself, where transformers or sentence-transformers are installed."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from schemas.content_settings import ContentSettings, Precision
from schemas.errors import ConfigurationError
from streams.content.decoded import Sound
from streams.content.disk_models import SentenceModel, TransformersAudioModel, TransformersImageModel
from streams.content.placement import Placement, placement_of

from ..media_files import pixels, tone

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytestmark = pytest.mark.filterwarnings("default")  # of packages that are not ours


def save_siglip(folder: Path) -> None:
    torch.manual_seed(1)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SiglipConfig(
        text_config=sizes | {"vocab_size": 99, "projection_size": 16},
        vision_config=sizes | {"image_size": 32, "patch_size": 16},
    )
    transformers.SiglipModel(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = {"image_processor_type": "SiglipImageProcessor", "size": size, "do_resize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def save_whisper(folder: Path) -> None:
    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, vocab_size=99, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    transformers.WhisperModel(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)


def test_pictures_through_siglip(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    save_siglip(tmp_path)
    encoder = TransformersImageModel(tmp_path)
    pictures = [pixels(260, 260, seed) for seed in range(18)]  # more than one batch
    vectors = encoder.encode(pictures)
    assert vectors.dtype == np.float32
    assert (vectors.shape, encoder.dims) == ((18, 16), 16)
    np.testing.assert_allclose(encoder.encode(pictures[17:]), vectors[17:], atol=1e-5)
    assert np.ptp(vectors, axis=0).min() > 0
    version = encoder.version
    assert TransformersImageModel(tmp_path).version == version
    save_whisper(tmp_path / "other")
    assert TransformersAudioModel(tmp_path / "other").version != version


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_numbers_give_nearly_the_same_as_another_version(tmp_path: Path, precision: Precision) -> None:
    save_whisper(tmp_path)
    placement = placement_of(ContentSettings(precision=precision))
    whole, half = TransformersAudioModel(tmp_path), TransformersAudioModel(tmp_path, placement)
    sounds = [Sound([tone(1.0, pitch)], 16_000, 1.0) for pitch in (220.0, 2_000.0)]
    expected, found = whole.encode(sounds), half.encode(sounds)
    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999
    assert (whole.name, f"{whole.version}-{precision}") == (half.name, half.version)


def test_sounds_through_the_encoder_of_whisper(tmp_path: Path) -> None:
    save_whisper(tmp_path)
    encoder = TransformersAudioModel(tmp_path)
    sounds = [Sound([tone(1.0, pitch)], 16_000, 1.0) for pitch in (220.0, 2_000.0)]
    vectors = encoder.encode(sounds)
    assert vectors.shape == (2, 16)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-4
    np.testing.assert_array_equal(encoder.encode(sounds[:1])[0], vectors[0])


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=str(tmp_path)):
        TransformersImageModel(tmp_path)


def test_titles_through_sentence_transformers(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("sentence_transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "cat", "day", "report"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab={word: n for n, word in enumerate(words)})
    torch.manual_seed(1)
    bert = transformers.BertModel(
        transformers.BertConfig(
            vocab_size=len(words),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    )
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    # A folder without modules of its own gets mean pooling.
    library.SentenceTransformer(str(tmp_path / "bert"), device="cpu").save(str(tmp_path / "saved"))
    encoder = SentenceModel(tmp_path / "saved")
    vectors = encoder.encode(["cat day", "report", "<b>cat</b> day"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0] * 3, abs=1e-5)
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert vectors[0] @ vectors[1] < 0.999
    half = SentenceModel(tmp_path / "saved", Placement(precision="bfloat16"))
    assert half.version == f"{encoder.version}-bfloat16"
    found = half.encode(["cat day", "report"])
    assert found.dtype == np.float32
    assert (found * vectors[:2]).sum(axis=1).min() > 0.999
