"""The script of a text is that of most of its letters."""

import pytest

from lmsys_ray.evaluation.writing_system import NO_LETTERS, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("How do I peel a mango?", "Latin"),
        ("Wie schält man Äpfel? Übung!", "Latin"),
        ("Как очистить яблоко", "Cyrillic"),
        ("怎么削苹果？", "Han"),
        ("りんごの皮のむき方を教えてください", "Kana"),
        ("リンゴ", "Kana"),
        ("ﾘﾝｺﾞ", "Kana"),
        ("사과를 어떻게 깎나요", "Hangul"),
        ("كيف أقشر التفاحة", "Arabic"),
        ("सेब कैसे छीलें", "Devanagari"),
        ("Πώς ξεφλουδίζω", "Greek"),
        ("איך מקלפים תפוח", "Hebrew"),
        ("ปอกแอปเปิ้ลอย่างไร", "Thai"),
        ("ＡＢＣ full width", "Latin"),
        ("Translate: Переведите это предложение", "Cyrillic"),
        ("12 + 7 = ?", NO_LETTERS),
        ("", NO_LETTERS),
    ],
)
def test_script_of_a_text(text: str, script: str) -> None:
    assert script_of(text) == script


def test_a_tie_is_broken_the_same_way_whatever_the_order() -> None:
    assert script_of("ab бв") == script_of("бв ab")
