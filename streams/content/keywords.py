"""Words of a title that may serve as its tags: jieba for Chinese, what is between spaces otherwise."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Final

from .extra import extra
from .texts import FUNCTION_WORDS, LETTER_RUN, clean_text, guess_language

_CHINESE_STOP_WORDS: Final = frozenset(
    word
    for line in (
        "我们 你们 他们 她们 自己 这个 那个 这些 那些 什么 怎么 为什么 如何 可以 没有 不是 就是 一个 一种",
        "因为 所以 但是 而且 或者 如果 还是 已经 非常 真的 大家 时候 现在 知道 觉得 这样 那样 不要 不能",
    )
    for word in line.split()
)
MIN_CHARS: Final = 2


class Keywords:
    """Words by tf * idf; jieba's dictionary and its inverse document frequencies for Chinese.

    Holds about 150 MB once a Chinese text was met, which takes a second. jieba's own cache file is not used:
    it would be read from a folder that anyone may write to.
    """

    def __init__(self) -> None:
        with extra():
            import jieba
        jieba.setLogLevel(logging.WARNING)
        self._tokenizer = jieba.Tokenizer()
        self._idf_path = Path(jieba.__file__).parent / "analyse" / "idf.txt"
        self._idf: dict[str, float] = {}
        self._median_idf = 0.0

    def words(self, text: str) -> list[str]:
        """All words of a text in their order, lower case, punctuation left out."""
        if guess_language(text) == "zh":
            self._load()
            pieces = self._tokenizer.lcut(text)
        else:
            pieces = [text]
        return [word.lower() for piece in pieces for word in LETTER_RUN.findall(piece)]

    def of(self, text: str, n: int = 8) -> list[str]:
        """At most `n` keywords, best first; of equals the one that comes first in the text."""
        text = clean_text(text)
        language = guess_language(text)
        stop_words = FUNCTION_WORDS.get(language, frozenset()) | FUNCTION_WORDS["en"] | _CHINESE_STOP_WORDS
        counts = Counter(
            word for word in self.words(text) if len(word) >= MIN_CHARS and word not in stop_words
        )
        weights = {
            word: count * self._idf.get(word, self._median_idf or 1.0) for word, count in counts.items()
        }
        return sorted(weights, key=lambda word: -weights[word])[:n]

    def _load(self) -> None:
        if self._idf:
            return
        # As its `initialize`, without the cache file.
        self._tokenizer.FREQ, self._tokenizer.total = self._tokenizer.gen_pfdict(
            self._tokenizer.get_dict_file()
        )
        self._tokenizer.initialized = True
        lines = self._idf_path.read_text(encoding="utf-8").splitlines()
        self._idf = {word: float(idf) for word, _, idf in (line.partition(" ") for line in lines)}
        self._median_idf = sorted(self._idf.values())[len(self._idf) // 2]
