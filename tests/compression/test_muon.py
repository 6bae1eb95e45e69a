"""Muon in float32 is torch's Muon but for rounding, and is used where bfloat16 is emulated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from madtp_cli.compression import muon as module
from madtp_cli.compression.muon import Muon, muon, orthogonalised
from madtp_cli.evaluation import number_formats

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SHAPES = [(24, 24), (24, 60), (60, 24)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Return a random matrix."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_singular_values_come_near_one(shape) -> None:
    """The singular vectors stay: the result and the exact polar factor point in the same direction."""
    matrix = drawn(shape)
    result = orthogonalised(matrix, COEFFICIENTS, 5, 1e-7)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    in_vectors = left.T @ result @ right.T
    large = values > 0.1 * values.max()  # five iterations do not lift the smallest values
    assert result.dtype == torch.float32
    assert ((in_vectors.diagonal()[large] > 0.5) & (in_vectors.diagonal()[large] < 1.5)).all()
    assert (in_vectors - in_vectors.diagonal().diag()).abs().max() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("nesterov", [True, False])
def test_the_steps_are_those_of_torch_but_for_rounding(shape, nesterov) -> None:
    """Three steps with momentum and weight decay; bfloat16 has 8 bits."""
    start, results = drawn(shape), []
    for float32 in (False, True):
        matrix = nn.Parameter(start.clone())
        optimizer = Muon([matrix], float32=float32, lr=0.1, weight_decay=0.2, nesterov=nesterov)
        for step in range(3):
            matrix.grad = drawn(shape, 1 + step)
            optimizer.step()
        results.append(matrix.detach() - start)
    assert (results[0] - results[1]).norm() < 0.02 * results[0].norm()


def test_the_float32_step_is_exactly_that_of_torch_with_its_function_in_float32(monkeypatch) -> None:
    """torch's own step with only the orthogonalisation replaced."""
    import torch.optim._muon as original

    results = []
    for float32 in (False, True):
        matrix = nn.Parameter(drawn((24, 60)))
        optimizer = Muon([matrix], float32=float32, lr=0.1, weight_decay=0.2)
        for step in range(3):
            matrix.grad = drawn((24, 60), 1 + step)
            with monkeypatch.context() as patched:
                patched.setattr(original, "_zeropower_via_newtonschulz", orthogonalised)
                optimizer.step()
        results.append(matrix.detach())
    torch.testing.assert_close(results[0], results[1])


def test_matrices_of_one_shape_are_computed_together_with_the_same_result(monkeypatch) -> None:
    """Bitwise equal to a step of each matrix alone, also when they are computed in two parts."""
    monkeypatch.setattr(module, "TOGETHER", 2 * 24 * 60)
    shapes = [*SHAPES, (24, 60), (24, 60)]
    results = []
    for alone in (True, False):
        matrices = [nn.Parameter(drawn(shape, number)) for number, shape in enumerate(shapes)]
        for number, matrix in enumerate(matrices):
            matrix.grad = drawn(tuple(matrix.shape), 10 + number)
        for part in [[matrix] for matrix in matrices] if alone else [matrices]:
            Muon(part, float32=True, lr=0.1).step()
        results.append([matrix.detach() for matrix in matrices])
    assert [len(part) for part in module.same_shapes(results[1])] == [1, 2, 1, 1]
    assert all(torch.equal(*both) for both in zip(*results, strict=True))


def test_a_matrix_without_a_gradient_stays() -> None:
    """Not even weight decay changes it, as in torch."""
    matrix = nn.Parameter(torch.ones(3, 4))
    Muon([matrix], float32=True, lr=1.0, weight_decay=0.5).step()
    assert (matrix == 1).all()


@pytest.mark.parametrize(("fast", "others", "float32"), [(True, True, False), (True, False, True), (False, True, True)])
def test_the_number_format_is_fast_in_all_processes(monkeypatch, fast, others, float32) -> None:
    """With different formats the weights of the processes would drift apart: gradients are exchanged, weights not."""
    monkeypatch.setattr(module.number_formats, "is_fast", lambda dtype, device="cpu": fast)
    monkeypatch.setattr(module.processes, "gathered", lambda items: [*items, others])
    optimizer = muon([nn.Parameter(torch.ones(2, 3))], lr=0.1, ns_steps=3)
    assert optimizer.param_groups[0]["float32"] is float32
    assert (optimizer.defaults["ns_steps"], optimizer.defaults["adjust_lr_fn"]) == (3, "match_rms_adamw")


@pytest.mark.parametrize("float32", [True, False])
def test_a_saved_state_keeps_its_number_format(float32) -> None:
    """The machine that continues a run may choose another one for itself."""
    results = []
    for other in (float32, not float32):
        matrix = nn.Parameter(drawn((24, 60)))
        optimizer = Muon([matrix], float32=other, lr=0.1)
        optimizer.load_state_dict(Muon([matrix], float32=float32, lr=0.1).state_dict())
        matrix.grad = drawn((24, 60), 1)
        optimizer.step()
        results.append(matrix.detach())
    assert torch.equal(*results)


def test_this_machine_gets_one_of_both() -> None:
    """Nothing is replaced here: the choice follows the features of the machine that runs the test."""
    chosen = muon([nn.Parameter(torch.ones(2, 3))], lr=0.1)
    assert chosen.param_groups[0]["float32"] != number_formats.is_fast(torch.bfloat16)
