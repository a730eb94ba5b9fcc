import torch

from dllm2rec.core.seeding import torch_generator
from dllm2rec.students.dots import row_dots


def test_dot_products_by_hand() -> None:
    rows = torch.tensor([[[1.0, 0.0], [2.0, 3.0]], [[-1.0, 1.0], [0.0, 0.0]]])
    assert row_dots(torch.tensor([[1.0, 2.0], [4.0, 5.0]]), rows).tolist() == [[1.0, 8.0], [1.0, 0.0]]


def test_gradients_and_no_rows() -> None:
    generator = torch_generator(0, "dots")
    hidden = torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_()
    rows = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(row_dots, (hidden, rows))
    assert row_dots(hidden, rows[:, :0]).shape == (3, 0)
