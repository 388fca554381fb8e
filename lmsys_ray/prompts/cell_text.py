"""Turns the raw cell of a conversation into the text that a template takes."""

from typing import Literal

from lmsys_ray.data.conversations import TYPED, CellForm, decode_cell
from lmsys_ray.errors import UsageError
from lmsys_ray.prompts.turns import JOINED_BY, TurnChoice, chosen

TextMode = Literal["json", "notebook"]


def check_turns(text: TextMode, choice: TurnChoice, apart: bool = False) -> None:
    """Raises `UsageError` where cells are not decoded, but some of their turns, or each `apart`, are to be read."""
    if text == "notebook" and (choice != "all" or apart):
        what = f"turns: {choice}" if choice != "all" else "template: a whole conversation"
        raise UsageError(
            f"{what} needs text = json, since text = notebook does not tell turns apart; change one of them"
        )


def cell_text(cell: str | None, mode: TextMode = "json", form: CellForm = "auto") -> str:
    """Returns the text of a cell; a missing cell becomes the empty text.

    `json` decodes the list of turns and joins them with blank lines. `notebook` cleans the undecoded cell as the
    reference notebook does; `form` then has no effect.
    """
    return JOINED_BY.join(cell_turns(cell, mode, form))


def cell_turns(
    cell: str | None, mode: TextMode = "json", form: CellForm = "auto", choice: TurnChoice = "all"
) -> list[str]:
    """Returns the turns of a cell that are read; with `notebook` the whole cell is one."""
    if cell is None:
        return []
    if mode == "notebook":
        return [notebook_text(cell.removeprefix(TYPED))]
    return chosen(decode_cell(cell, form), choice)


def notebook_text(cell: str) -> str:
    """Strips the brackets, splits on `","`, strips quotes, joins with a space; JSON escapes stay as written.

    This is how the reference notebook reads a cell, quirks included: a text that contains `","` is split there, and one
    that ends in a quote loses it.
    """
    return " ".join(turn.strip('"') for turn in cell.strip("[]").split('","'))
