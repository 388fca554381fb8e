"""Detects which script a text is written in."""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

NO_LETTERS = "no letters"
_NAMES = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}


def script_of(text: str) -> str:
    """Returns the script of most of the text's letters: Latin, Cyrillic, Han, Kana, Hangul, Arabic and so on.

    The script of a letter is the first word of its Unicode name, after compatibility forms (full width, mathematical)
    are normalised. Japanese counts as Kana, which outnumbers Han in running text.
    """
    letters = Counter(unicodedata.normalize("NFKC", text))
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            scripts[_letter_script(letter)] += count
    return max(scripts, key=lambda script: (scripts[script], script)) if scripts else NO_LETTERS


@lru_cache(maxsize=1 << 16)
def _letter_script(letter: str) -> str:
    first = re.split("[ -]", unicodedata.name(letter, "UNNAMED"), maxsplit=1)[0]
    return _NAMES.get(first, first.title())
