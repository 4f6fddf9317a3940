from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.texts import texts_of, texts_of_bytes

STRINGS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=12)


@given(STRINGS, st.data())
def test_texts_are_the_strings_whatever_is_selected(strings: list[str], data: st.DataObject) -> None:
    texts = texts_of(strings)
    assert len(texts) == len(strings)
    assert texts.to_list() == [texts[i] for i in range(len(texts))] == strings
    assert texts.to_bytes_list() == [texts.bytes_of(i) for i in range(len(texts))]
    rows = data.draw(st.lists(st.sampled_from(range(len(strings))), max_size=9)) if strings else []
    assert texts.take(np.array(rows, dtype=np.int64)).to_list() == [strings[row] for row in rows]
    assert texts.take(np.array([len(one) > 2 for one in strings], dtype=np.bool_)).to_list() == [
        one for one in strings if len(one) > 2
    ]


def test_bytes_become_the_same_texts() -> None:
    assert texts_of_bytes([b"a", "é".encode()]).to_list() == ["a", "é"]
