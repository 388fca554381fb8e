"""Cells and templates become text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmsys_ray.data.conversations import CELLS
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.cell_text import cell_text, notebook_text
from lmsys_ray.prompts.template import PACKAGED, Template

TEXTS = st.fixed_dictionaries({cell: st.text(max_size=40) for cell in CELLS})


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["one","two"]', "one\n\ntwo"),
        ('["one",null]', "one\n\n"),
        ("[null]", ""),
        ("[]", ""),
        ('["line\\nbreak"]', "line\nbreak"),
        ('["lone \\ud83d"]', "lone �"),
        ('["pair \\ud83d\\ude00"]', "pair 😀"),
        ("plain text", "plain text"),
        (None, ""),
    ],
)
def test_json_text_decodes_the_turns(cell: str | None, expected: str) -> None:
    assert cell_text(cell, "json") == expected


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ('["one","two"]', "one two"),
        ('["one", "two"]', 'one", "two'),  # only `","` without a space separates
        ('["a line\\nand \\u00e9"]', "a line\\nand \\u00e9"),
        ("[null]", "null"),
        ('["ends in [1]"]', "ends in [1]"),
        ('["say ","," twice"]', 'say  ," twice'),
        ('[""quoted""]', "quoted"),
        ("", ""),
        (None, ""),
    ],
)
def test_notebook_text_keeps_the_notebooks_quirks(cell: str | None, expected: str) -> None:
    assert cell_text(cell, "notebook") == expected


def test_notebook_text_strips_brackets_of_the_text_itself() -> None:
    assert notebook_text("[[x]]") == "x"


def test_notebook_template_is_the_notebooks_to_the_letter() -> None:
    rendered = Template.parse("notebook").render({"prompt": "P", "response_a": "A", "response_b": "B"})
    assert rendered == "User prompt: P\n\nModel A :\nA\n\n--------\n\nModel B:\nB"


@given(TEXTS)
def test_rendering_never_reads_braces_in_texts(texts: dict[str, str]) -> None:
    template = Template.parse("{{{prompt}}} {response_b}|{response_a}")
    assert template.render(texts) == f"{{{texts['prompt']}}} {texts['response_b']}|{texts['response_a']}"


@given(TEXTS, st.sampled_from([*PACKAGED, "{response_b} and {response_a}"]))
def test_spans_say_where_the_fields_lie(texts: dict[str, str], name: str) -> None:
    template = Template.parse(name)
    rendered = template.render(texts)
    found = [rendered[start:end] for start, end in template.spans(texts)]
    assert found == [texts[field] for field in template.fields]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("ntebook", "neither one of notebook, labelled"),
        ("{prompt} {response_a}", "no {response_b} nor {conversation_b}"),
        ("{conversation_b}: {prompt}", "no {response_a} nor {conversation_a}"),
        ("{prompt} {response_a} {response_b} {model_a}", "{model_a} is not a placeholder"),
        ("{response_a} {response_b} {response_a}", "{response_a} occurs twice"),
        ("{response_a:>10} {response_b}", "no format"),
        ("{response_a!r} {response_b}", "no format"),
        ("{response_a} {response_b", "does not parse"),
        ("{} {response_a} {response_b}", "{} is not a placeholder"),
        ("{response_a}{response_b}", "no text of its own"),
    ],
)
def test_a_template_that_cannot_be_meant_is_refused(setting: str, sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        Template.parse(setting)
    assert sentence in str(error.value)
    assert str(error.value).startswith("template: ")
