"""Count the operations that a format runs while it converts a graph, to tell how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.overrides import TorchFunctionMode

#: Largest number of times that the progress is reported.
STEPS = 100


class CountedOperations(TorchFunctionMode):
    """Reports the progress of the code inside a `with` statement, which runs the operations of a graph several times.

    It changes no operation. A graph is converted by running it with tensors that have shapes but no numbers.
    """

    def __init__(self, program: ExportedProgram, passes: float, report: Callable[[int], None]) -> None:
        """Count the operations of a graph.

        Args:
            program: The graph.
            passes: How many times each of its operations is run, as a mean.
            report: Receives how many of `STEPS` equal parts of the operations have been run.
        """
        super().__init__()
        calls = [node.target for node in program.graph.nodes if isinstance(node.target, OpOverload)]
        self._operations, self._expected, self._report = set(calls), passes * len(calls), report
        self._run, self._done = 0, -1

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operation, and run it."""
        if func in self._operations:
            done = min(STEPS, int(STEPS * self._run / self._expected))
            self._run += 1
            if done > self._done:
                self._done = done
                self._report(done)
        return func(*args, **(kwargs or {}))
