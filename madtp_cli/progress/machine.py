"""How fast this machine runs Python code, to estimate a time before anything of the run has been measured."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import dataclass, field

#: Seconds in which one free core of the machine of the estimates runs `_work`.
REFERENCE_SECONDS = 0.0054
#: Nodes of the graph that is built, and how many times. The first time, memory is fetched, which is not counted.
NODES, TIMES = 10_000, 5


@dataclass
class _Node:
    number: int
    inputs: tuple[_Node, ...] = ()
    about: dict[str, int] = field(default_factory=dict)


def slowness() -> float:
    """Return how many times longer than on the machine of the estimates Python code takes here, now.

    A graph is built, because tracing and converting a model do the same. This takes less than a tenth of a second.
    """
    collects = gc.isenabled()
    gc.disable()  # a collection takes as long as other objects in memory need
    try:
        return statistics.median(_seconds() for _ in range(TIMES)) / REFERENCE_SECONDS
    finally:
        if collects:
            gc.enable()


def _seconds() -> float:
    started = time.perf_counter()
    _work()
    return time.perf_counter() - started


def _work() -> int:
    nodes = list[_Node]()
    for number in range(NODES):
        nodes.append(_Node(number, tuple(nodes[-3:]), {"number": number}))
    return sum(isinstance(other, _Node) and other.about["number"] for node in nodes for other in node.inputs)
