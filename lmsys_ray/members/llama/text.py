"""From the raw cell of a conversation to the text that a template takes."""

from typing import Literal

from lmsys_ray.conversations import TYPED, CellForm, decode_cell

TextMode = Literal["json", "notebook"]


def cell_text(cell: str | None, mode: TextMode = "json", form: CellForm = "auto") -> str:
    """Returns the text of a cell; a missing cell is the empty text.

    `json` decodes the list of turns and joins them with a blank line. `notebook` cleans the undecoded cell the way the
    reference notebook does; `form` then has no effect.
    """
    if cell is None:
        return ""
    if mode == "notebook":
        return notebook_text(cell.removeprefix(TYPED))
    return "\n\n".join(decode_cell(cell, form))


def notebook_text(cell: str) -> str:
    """Strips the brackets, splits on `","`, strips quotes, joins with a space; JSON escapes stay as written.

    This is the reference notebook's reading of a cell, quirks included: a text that holds `","` is cut there, and one
    that ends in a quote loses it.
    """
    return " ".join(turn.strip('"') for turn in cell.strip("[]").split('","'))
