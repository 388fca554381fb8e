"""Which models can be compared: those that finite strengths have a likelihood for."""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

ABOVE = "it won every battle that connects it with the others, so that its strength has no finite value"
BELOW = "it lost every battle that connects it with the others, so that its strength has no finite value"
APART = "its battles do not connect it with the others"
ALONE = "no other model can be compared with it"
CONFOUNDED = "strengths cannot be told from the style of the responses"
UNSETTLED = "the likelihood has no maximum at finite strengths"


def wins(a: np.ndarray, b: np.ndarray, outcomes: np.ndarray, models: int) -> csr_array:
    """Returns who won, or tied, how often against whom, of sums of outcomes [pairs, 3] of models A and B [pairs]."""
    half = outcomes[:, 2] / 2
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    values = np.concatenate([outcomes[:, 0] + half, outcomes[:, 1] + half])
    found = csr_array((values, (rows, columns)), shape=(models, models))
    found.eliminate_zeros()
    return found


def all_comparable(won: csr_array) -> bool:
    """Returns whether every model won against every other, directly or by way of others.

    It is the condition under which strengths have a maximum likelihood at finite values (Zermelo 1929, Ford 1957).
    """
    return connected_components(won, connection="strong", return_labels=False) == 1


def set_apart(won: csr_array) -> dict[int, str]:
    """Returns the models that cannot be compared with the largest group of those that can, each with the reason.

    The largest group has the most models; of equal ones the most battles, then the first model.
    """
    count, group = connected_components(won, connection="strong")
    if count == 1:
        return {}
    models = np.arange(won.shape[0])
    battles = np.asarray(won.sum(axis=0) + won.sum(axis=1)).ravel()
    sizes, weights = np.bincount(group), np.bincount(group, weights=battles)
    firsts = [int(models[group == number][0]) for number in range(count)]
    largest = max(range(count), key=lambda number: (sizes[number], weights[number], -firsts[number]))
    beaten, beating = (
        set(breadth_first_order(edges, firsts[largest], return_predecessors=False).tolist())
        for edges in (won, csr_array(won.T))
    )
    return {
        int(model): ABOVE if model in beating else BELOW if model in beaten else APART
        for model in models[group != largest].tolist()
    }
