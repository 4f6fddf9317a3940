"""Titles and descriptions before they are encoded: cleaning, and a guess at the language."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

MAX_CHARS: Final = 1_024
"""More says little more about an item, and costs as much again."""

_TAGS: Final = re.compile(r"<(?:/?[a-zA-Z][^<>]*|!--.*?--)>", re.DOTALL)
_URLS: Final = re.compile(r"(?:https?://|www\.)[^\s<>\"'，。！？、）】》]+", re.IGNORECASE)
_SPACE: Final = re.compile(r"\s+")
_REPEATED: Final = re.compile(r"([^\w\s])\1{3,}")
LETTER_RUN: Final = re.compile(r"[^\W\d_]+")


def clean_text(text: str, max_chars: int = MAX_CHARS) -> str:
    """Plain text of one line: NFKC, entities resolved, without markup, addresses and what cannot be seen.

    A sign repeated four times or more is kept three times. Cleaning what is clean changes nothing.

    >>> clean_text("<b>Ｔｏｐ 10</b>&nbsp;cats!!!!!!  https://x.test/a?b=1")
    'Top 10 cats!!!'
    """
    text = text[: 4 * max_chars]
    while (cleaned := _clean_once(text, max_chars)) != text:  # an entity may resolve to another, or to markup
        text = cleaned
    return text


def _clean_once(text: str, max_chars: int) -> str:
    text = html.unescape(unicodedata.normalize("NFKC", text))
    text = _URLS.sub(" ", _TAGS.sub(" ", text))
    # Format signs go but for the joiners within emoji and within words of Persian and Indic scripts.
    kept = "".join(sign for sign in text if _is_seen(sign))
    text = _REPEATED.sub(r"\1\1\1", kept)
    return _SPACE.sub(" ", text)[:max_chars].strip()


def _is_seen(sign: str) -> bool:
    return sign.isspace() or sign in "\u200c\u200d" or unicodedata.category(sign)[0] != "C"


def with_cover(title: str, cover: str) -> str:
    r"""A title, and of the lines on the cover those that it does not say already.

    >>> with_cover("红烧肉的家常做法", "红烧肉的\n家常做法\n零失败")
    '红烧肉的家常做法 零失败'
    """
    said = _plain(title)
    parts = [title]
    for line in cover.split("\n"):
        if (plain := _plain(line)) and plain not in said:
            said += plain
            parts.append(line)
    return " ".join(part for part in parts if part)


def _plain(text: str) -> str:
    return "".join(sign for sign in unicodedata.normalize("NFKC", text).casefold() if sign.isalnum())


_SCRIPTS: Final[tuple[tuple[str, str], ...]] = (
    # (language, prefix of the Unicode name of its letters)
    ("zh", "CJK "),
    ("ja", "HIRAGANA "),
    ("ja", "KATAKANA "),
    ("ko", "HANGUL "),
    ("ru", "CYRILLIC "),
    ("ar", "ARABIC "),
    ("th", "THAI "),
    ("he", "HEBREW "),
    ("el", "GREEK "),
    ("hi", "DEVANAGARI "),
    ("latin", "LATIN "),
)
FUNCTION_WORDS: Final[dict[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the a an and of to in is it for on with you that this how what my from are by your at be",
        "es": "el la los las un una y de en es que por para con como del al se su más no lo mi",
        "fr": "le la les un une et de des du en est que pour avec dans sur au aux ce qui ne pas mon",
        "de": "der die das ein eine und von zu in ist mit für auf den dem des nicht wie im ich auch",
        "it": "il lo la gli le un una e di del della in è che per con come al non si mi sono",
        "pt": "o a os as um uma e de do da em é que por para com como no na não se seu mais",
        "nl": "de het een en van in is dat op te voor met niet zijn aan er om ook mijn hoe",
        "pl": "i w na z do nie się że jest to jak dla po od za co czy ale przez o",
        "tr": "bir ve bu da de için ile çok ne gibi daha en nasıl mı ben sen o var yok",
    }.items()
}


def guess_language(text: str) -> str:
    """ISO 639-1 code of the language a clean text is mostly in; ``und`` where nothing tells.

    By script; Han with a kana is Japanese. A Latin text is of the language with most of its function words,
    and English where none has any, as titles often are bare names.

    >>> [guess_language(text) for text in ("猫咪的一天", "猫がかわいい", "How to cook the rice", "12:30")]
    ['zh', 'ja', 'en', 'und']
    """
    counts: dict[str, int] = {}
    for sign in text:
        if sign.isalpha():
            language = _script_of(sign)
            counts[language] = counts.get(language, 0) + 1
    counts.pop("", None)
    if not counts:
        return "und"
    if counts.get("ja") and counts["ja"] + counts.get("zh", 0) > counts.get("latin", 0) / 4:
        return "ja"
    # One sign of Chinese or Korean says as much as several letters.
    weights = {language: n * (4 if language in {"zh", "ko"} else 1) for language, n in counts.items()}
    best = max(weights, key=lambda language: (weights[language], language))
    return _latin_language(text) if best == "latin" else best


def _script_of(sign: str) -> str:
    if sign.isascii():
        return "latin"
    name = unicodedata.name(sign, "")
    return next((language for language, start in _SCRIPTS if name.startswith(start)), "")


def _latin_language(text: str) -> str:
    words = [word.lower() for word in LETTER_RUN.findall(text)]
    found = {language: sum(word in known for word in words) for language, known in FUNCTION_WORDS.items()}
    return max(found, key=lambda language: found[language])  # of equals the first, English before all
