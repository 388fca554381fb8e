"""A row as a better and a worse response, and a conversation as what both sides share and where they part."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmsys_ray import CLASSES
from lmsys_ray.data.turns import ASSISTANT, USER
from lmsys_ray.prompts.turns import exchanges

SAME = "both responses are the same"
APART = "the responses answer other turns of the user"

Exchange = tuple[str, str]
"""A turn of the user and the answer to it."""


class Sides(NamedTuple):
    """A conversation with two sides, which share some exchanges and part at an answer to the same turn."""

    shared: list[Exchange]
    asked: str
    """The turn of the user at which the answers part."""
    a: list[str]
    """From there on the answers of A and turns of the user by turns."""
    b: list[str]


@dataclass(frozen=True)
class Pair:
    """A row as a preference."""

    id: str
    sides: Sides
    probabilities: Sequence[float]
    """The blend: P(a), P(b), P(tie)."""
    better: int
    """The class, 0 or 1, of the better response."""
    carried: Mapping[str, Any]
    """What travels with the row, by the names of `lmsys_ray.data.carried`."""

    @property
    def chosen(self) -> list[str]:
        """The better side, from where both part."""
        return self.sides.b if self.better else self.sides.a

    @property
    def rejected(self) -> list[str]:
        """The worse side, from where both part."""
        return self.sides.a if self.better else self.sides.b

    @property
    def figures(self) -> dict[str, float]:
        """`p_margin`, `p_chosen` and `p_tie`; none is named `margin`, which trainers subtract in their loss."""
        chosen, other = self.probabilities[self.better], self.probabilities[1 - self.better]
        return {"p_margin": figure(chosen - other), "p_chosen": figure(chosen), "p_tie": figure(self.probabilities[2])}

    @property
    def agreement(self) -> bool | None:
        """Whether people chose the response that the blend prefers; None where nobody was asked."""
        label = self.carried.get("label")
        return None if label is None else bool(label == (self.probabilities[1] > self.probabilities[0]))

    @property
    def label(self) -> str | None:
        """What people chose, as in `lmsys_ray.CLASSES`."""
        label = self.carried.get("label")
        return None if label is None else CLASSES[label]

    def extras(self) -> dict[str, Any]:
        """Returns `agreement`, `chosen_model` and `rejected_model`, as far as the run has what they are made from."""
        found: dict[str, Any] = {"agreement": self.agreement} if "label" in self.carried else {}
        if "model_a" in self.carried and "model_b" in self.carried:
            models = [self.carried["model_a"], self.carried["model_b"]]
            found |= {"chosen_model": models[self.better], "rejected_model": models[1 - self.better]}
        return found


def figure(value: float) -> float:
    """Returns a probability as files show it, to six places; never -0."""
    return round(value, 6) + 0.0


def split(prompt: Sequence[str], response_a: Sequence[str], response_b: Sequence[str]) -> Sides | str:
    """Returns the turns of three cells as a conversation with two sides, or why they are none.

    Which answer belongs to which turn is as members read it (`lmsys_ray.prompts.turns.exchanges`).
    """
    a, b = exchanges(prompt, response_a), exchanges(prompt, response_b)
    if a == b:
        return SAME
    common = 0
    while common < min(len(a), len(b)) and a[common] == b[common]:
        common += 1
    if common == min(len(a), len(b)) or a[common][0] != b[common][0]:
        return APART
    return Sides(a[:common], a[common][0], _from(a[common:]), _from(b[common:]))


def _from(rest: Sequence[Exchange]) -> list[str]:
    return [text for exchange in rest for text in exchange][1:]


def messages(sides: Sides, side: Sequence[str] | None) -> list[dict[str, str]]:
    """Returns what both sides share as chat messages, to the turn of the user at which they part, and then `side`."""
    texts = [text for exchange in sides.shared for text in exchange] + [sides.asked]
    return as_messages(texts, USER) + ([] if side is None else as_messages(side, ASSISTANT))


def as_messages(texts: Sequence[str], first: str) -> list[dict[str, str]]:
    """Returns texts as chat messages of the user and the assistant by turns; `first` has the first."""
    roles = (USER, ASSISTANT) if first == USER else (ASSISTANT, USER)
    return [{"role": roles[place % 2], "content": text} for place, text in enumerate(texts)]


def transcript(said: Sequence[Mapping[str, str]]) -> str:
    r"""Returns messages as one text, in the form of the hh-rlhf data: `\n\nHuman: … \n\nAssistant: …`."""
    names = {USER: "Human", ASSISTANT: "Assistant"}
    return "".join(f"\n\n{names[message['role']]}: {message['content']}" for message in said)
