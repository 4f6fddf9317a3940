"""Cleaning, language and keywords of titles."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.content.keywords import Keywords
from streams.content.texts import clean_text, guess_language

PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "<b>",
            "</b>",
            "<!--",
            "-->",
            "&amp;",
            "&lt;",
            "&#60;",
            "&#xFDFA;",
            "amp;",
            "lt;",
            "https://a.test/",
            "www.",
            "！！！！",
            "\u200b",
            "\ufeff",
            "\u202e",
            "\r\n",
            "\0",
            "\ud800",
            "ＡＢＣ",
            "ﷺ",
            "é",
            "e\u0301",
            "猫咪",
        ]
    ),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@settings(max_examples=60)
@given(TEXTS)
def test_clean_text_is_one_short_visible_line_and_stays_so(text: str) -> None:
    cleaned = clean_text(text, 40)
    assert clean_text(cleaned, 40) == cleaned
    assert len(cleaned) <= 40
    assert cleaned == " ".join(cleaned.split())
    assert all(unicodedata.category(sign)[0] != "C" or sign in "\u200c\u200d" for sign in cleaned)
    assert unicodedata.is_normalized("NFKC", cleaned)
    cleaned.encode()  # no half of a surrogate pair


@given(TEXTS)
def test_nothing_is_lost_of_plain_words(text: str) -> None:
    words = "".join(sign if sign.isascii() and sign.isalnum() else " " for sign in text).split()
    plain = " ".join(word for word in words if not word.startswith(("http", "www")))
    assert clean_text(plain) == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  多啦\u3000Ａ梦 \n", "多啦 A梦"),
        ("<p>Fish &amp; Chips</p><!-- x -->", "Fish & Chips"),
        ("a &amp;amp;amp; b", "a & b"),
        ("&lt;script&gt;alert(1)&lt;/script&gt;", "alert(1)"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("看这里https://v.test/abc。太好笑了！！！！！！", "看这里 。太好笑了!!!"),
        ("a\u200bb\u202ec\x07d", "abcd"),
        ("👩\u200d🚀 space", "👩\u200d🚀 space"),
        ("x" * 5_000, "x" * 1_024),
        ("", ""),
    ],
)
def test_cleaning(text: str, expected: str) -> None:
    assert clean_text(text) == expected


def test_cleaning_of_nested_entities_is_quick_and_complete() -> None:
    assert clean_text("&" + "amp;" * 1_000) == "&"


@given(st.text(max_size=60))
def test_every_text_has_a_language(text: str) -> None:
    language = guess_language(text)
    assert language.islower()
    assert language != "latin"
    assert (language == "und") <= (not any(sign.isascii() and sign.isalpha() for sign in text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("三分钟学会做红烧肉", "zh"),
        ("iPhone 15 Pro Max 开箱评测", "zh"),
        ("東京の美味しいラーメン", "ja"),
        ("김치찌개 맛있게 끓이는 법", "ko"),
        ("Как приготовить борщ", "ru"),
        ("كيف تصنع القهوة", "ar"),
        ("How to make coffee at home", "en"),
        ("Wie man einen guten Kaffee macht und serviert", "de"),
        ("Cómo hacer café en la casa", "es"),
        ("Comment faire un bon café avec du lait", "fr"),
        ("Minecraft", "en"),
        ("1234 — 5678", "und"),
        ("", "und"),
    ],
)
def test_languages(text: str, expected: str) -> None:
    assert guess_language(text) == expected


def test_keywords() -> None:
    keywords = Keywords()
    assert keywords.words("我来到北京清华大学") == ["我", "来到", "北京", "清华大学"]
    assert set(keywords.of("三分钟学会做红烧肉，非常好吃的红烧肉", 2)) >= {"红烧肉"}
    assert keywords.of("三分钟学会做红烧肉，非常好吃的红烧肉", 1) == ["红烧肉"]
    assert keywords.of("How to make the best coffee: coffee at home", 2) == ["coffee", "make"]
    assert keywords.of("<b>的 了！</b>") == []
    assert keywords.of("") == []
