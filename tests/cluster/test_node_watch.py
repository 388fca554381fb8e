"""What is said of nodes that a stage waits for, and that come and go."""

from lmsys_ray.cluster.node_watch import NodeWatch

WAITS = "llama: waits for nodes with 2 GPUs, the cluster has none"


def said(looks: list[tuple[float, list[float]]]) -> list[str]:
    lines: list[str] = []
    watch = NodeWatch("llama", "GPU", 2, lines.append)
    for seconds, nodes in looks:
        watch.update(nodes, seconds)
    return lines


def test_nothing_is_said_while_the_nodes_stay() -> None:
    assert said([(0, [4.0]), (1, [4.0]), (200, [4.0])]) == []


def test_waiting_is_said_at_once_and_then_every_minute() -> None:
    assert said([(5, [])]) == [WAITS]
    assert said([(5, []), (6, []), (64, []), (65, []), (66, [])]) == [WAITS, WAITS]


def test_each_coming_and_going_is_said() -> None:
    looks: list[tuple[float, list[float]]] = [(0, []), (1, [4.0]), (2, [4.0]), (3, [4.0, 2.0]), (4, [2.0]), (5, [])]
    assert said(looks) == [
        WAITS,
        "llama: nodes with GPUs are now 1, with 4 in all",
        "llama: nodes with GPUs are now 2, with 6 in all",
        "llama: nodes with GPUs are now 1, with 2 in all",
        WAITS,
    ]
