"""What a judge is asked, and the tokens that are its verdicts.

A judge reads both conversations in one message of the user and answers with one token, as in FastChat's `pairwise`
prompts; the words are this package's own. See https://arxiv.org/abs/2306.05685.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from lmsys_ray.data.turns import USER
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.chat_rows import ChatRows
from lmsys_ray.prompts.marks import ChatMessage, Part
from lmsys_ray.prompts.template import Filled, Template

_CONVERSATIONS = (
    "[Conversation with assistant A]\n{conversation_a}\n[End of the conversation with assistant A]\n\n"
    "[Conversation with assistant B]\n{conversation_b}\n[End of the conversation with assistant B]\n\n"
)

_PAIRWISE = (
    "Two assistants, A and B, were each asked the same by one user. Their conversations are below. Judge which "
    "assistant served the user better.\n\n"
    "Look at what the user wanted in each turn, and at how well the replies give it: whether they follow the user's "
    "instructions, are correct and complete, stay with the question, and are clear. Weigh the whole conversation. "
    "Neither the length of a reply nor its formatting, nor which assistant stands first, is a merit by itself.\n\n"
    f"{_CONVERSATIONS}Which assistant served the user better?"
)

_REFERENCE_FREE = (
    "You compare the replies of two assistants, A and B, to one user. There is no reference answer to hold them "
    "against, so work out for yourself what a good reply must contain before you compare.\n\n"
    "Criteria, the weightiest first:\n"
    "1. Instructions: each turn is answered as the user asked, within every limit that the user set.\n"
    "2. Truth: facts, figures, reasoning and code hold up when you check them yourself. That both assistants say the "
    "same does not make it true, and a confident tone is no evidence.\n"
    "3. Use: the reply has what the user needs to go on, and nothing that gets in the way. Where the honest reply is "
    "that something cannot be known or done, saying so is better than making something up.\n"
    "4. Clarity: it is well ordered and easy to follow, in the language and the tone that suit the user.\n"
    "Length, formatting and the order in which the assistants stand count for nothing by themselves.\n\n"
    f"{_CONVERSATIONS}By these criteria, which assistant's replies are better?"
)

PACKAGED = {"pairwise": _PAIRWISE, "pairwise_reference_free": _REFERENCE_FREE}
"""The prompts by the names that settings use, without the sentence that asks for a verdict."""


def judging_template(setting: str, verdicts: Mapping[str, Sequence[str]]) -> Template:
    """Parses the setting `prompt`; packaged prompts end by asking for the first text of each verdict.

    Raises `UsageError` as `Template.parse` does.
    """
    asked = {name: f"{text} {_closing(verdicts)}" for name, text in PACKAGED.items()}
    return Template.parse(setting, asked, key="prompt")


def _closing(verdicts: Mapping[str, Sequence[str]]) -> str:
    words = {name: texts[0].replace("{", "{{").replace("}", "}}") for name, texts in verdicts.items() if texts}
    better = f"{words['a']} if it is assistant A"
    if "tie" in words:
        return (
            f"Reply with {better}, {words['b']} if it is assistant B, or {words['tie']} if neither, and nothing else."
        )
    return f"Reply with {better} or {words['b']} if it is assistant B, and nothing else."


def judged(filled: Filled) -> list[ChatMessage]:
    """Returns a filled prompt as the message of the user."""
    template, parts = filled.template, [Part(filled.template.literals[0])]
    for field, literal in zip(template.fields, template.literals[1:], strict=True):
        parts += Part(filled.texts[field], field), Part(literal)
    return [ChatMessage(USER, parts)]


def verdict_tokens(
    rows: ChatRows, context: str, verdicts: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[int]], int]:
    """Returns the token ids of each verdict, by class: those that may follow `context` as one token.

    Each text counts with and without a space before it. Tokenizers give the last of the spaces in which a context may
    end to the token that follows; how many it then takes from the end of each row is the second value. Raises
    `UsageError` for a text that is no single token there, and for verdicts that share one.
    """
    spaces = len(context) - len(context.rstrip(" "))
    for taken in range(spaces + 1):
        found = _single_tokens(rows, context, taken, verdicts)
        if all(tokens for texts in found.values() for tokens in texts):
            break
    else:
        name, place = next((name, texts.index([])) for name, texts in found.items() if [] in texts)
        text = verdicts[name][place]
        shown = _shown(rows, rows.ids(context.rstrip(" ")), rows.ids(context + text))
        raise UsageError(
            f"verdicts.{name}: {text!r} is no single token after the prompt, but {shown}; give a text of one token, "
            "and as prefix what stands before it"
        )
    ids = {name: list(dict.fromkeys(token for tokens in texts for token in tokens)) for name, texts in found.items()}
    for (name, tokens), (other, others) in combinations(ids.items(), 2):
        if shared := set(tokens) & set(others):
            token = rows.tokenizer.tokenizer.decode([min(shared)], skip_special_tokens=False)
            raise UsageError(f"verdicts: {name} and {other} share the token {token!r}; give each texts of its own")
    return ids, taken


def _single_tokens(
    rows: ChatRows, context: str, taken: int, verdicts: Mapping[str, Sequence[str]]
) -> dict[str, list[list[int]]]:
    """Returns for each text of each verdict the single tokens that spell it after `context` without `taken` spaces.

    The tokens of the context itself may be others there: some tokenizers join line breaks only at the end of a text.
    """
    before, spaces = context[: len(context) - taken], context[len(context) - taken :]

    def single(text: str) -> list[int]:
        variants = [spaces + text] if context.endswith(" ") else [text, " " + text.lstrip(" ")]
        ids = [rows.ids(before + variant).tolist() for variant in variants]
        return [row[-1] for row, variant in zip(ids, variants, strict=True) if _last_text(rows, row) == variant]

    return {name: [single(text) for text in texts] for name, texts in verdicts.items()}


def _last_text(rows: ChatRows, ids: list[int]) -> str:
    """Returns the text of the last token, with the space that begins it."""
    decode = rows.tokenizer.tokenizer.decode
    return decode(ids[-2:], skip_special_tokens=False).removeprefix(decode(ids[-2:-1], skip_special_tokens=False))


def _shown(rows: ChatRows, start: np.ndarray, ids: np.ndarray) -> str:
    """Returns the tokens of `ids` that `start` does not begin with, for a sentence."""
    length = min(len(start), len(ids))
    same = int((start[:length] == ids[:length]).cumprod().sum())
    tokens = [rows.tokenizer.tokenizer.decode([int(token)], skip_special_tokens=False) for token in ids[same:]]
    return " + ".join(map(repr, tokens))
