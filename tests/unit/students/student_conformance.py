"""What every student must do, inherited by one test class a student."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dllm2rec.core.seeding import torch_generator
from dllm2rec.data.batches import Batch
from dllm2rec.losses.bce import BCELoss
from dllm2rec.students.base import SharedSettings, Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.item_table import ItemTable

V, L, B, TEXT = 40, 10, 24, 6
PAD = V


@pytest.mark.parametrize("output", ["separate", "tied"])
@pytest.mark.parametrize("text", [False, True], ids=["ids", "text"])
class StudentConformance:
    settings: SharedSettings

    def build(self, output: str, text: bool, seed: int = 1, **changes: object) -> Student:
        settings = self.settings.model_copy(update={"output": output, "dim": 16, **changes})
        vectors = torch.randn(V, TEXT, generator=torch_generator(0, "text")) * 50 + 7 if text else None
        generator = torch_generator(seed, "student")
        return build_student(settings, num_items=V, history=L, item_vectors=vectors, generator=generator)

    def histories(self) -> Tensor:
        """Full, short, one-item and empty ones."""
        history = torch.randint(V, (B, L), generator=torch_generator(0, "history"))
        for row in range(L + 1):
            history[row, : L - row] = PAD
        return history

    def test_padding_changes_nothing(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        expected = student.encode(history)
        longer = torch.cat([torch.full((B, 5), PAD), history], dim=1)
        torch.testing.assert_close(student.encode(longer), expected)
        short = history[:4]  # at most three items
        torch.testing.assert_close(student.encode(short[:, -4:]), expected[:4])

    def test_only_the_newest_items_count(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        older = torch.cat([torch.zeros(B, 5, dtype=torch.long), history], dim=1)
        torch.testing.assert_close(student.encode(older), student.encode(history))

    def test_the_order_of_the_items_counts(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()[-4:]
        assert not torch.allclose(student.encode(history), student.encode(history.flip(1)), atol=1e-4)

    def test_the_order_of_the_batch_does_not_count(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        order = torch.randperm(B, generator=torch_generator(0, "order"))
        torch.testing.assert_close(student(history[order]), student(history)[order])
        torch.testing.assert_close(student(history[3:4]), student(history)[3:4])

    def test_saved_and_loaded_it_scores_the_same(self, output: str, text: bool, tmp_path: Path) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        save_file(student.state_dict(), tmp_path / "student.safetensors")
        other = self.build(output, text, seed=2).eval()
        before = other(history)
        assert not torch.equal(before, student(history))
        with torch.no_grad():
            other(history)  # folds the old weights
            other.load_state_dict(load_file(tmp_path / "student.safetensors"))
            assert torch.equal(other(history), student(history))

    def test_dropout_is_drawn_in_training_only(self, output: str, text: bool) -> None:
        student, history = self.build(output, text, dropout=0.5), self.histories()
        student.train()
        first, again = (student.encode(history, generator=torch_generator(5, "dropout")) for _ in range(2))
        other = student.encode(history, generator=torch_generator(6, "dropout"))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        student.eval()
        assert torch.equal(student.encode(history), student.encode(history))
        assert torch.equal(student.encode(history), self.build(output, text, dropout=0.0).eval().encode(history))

    def test_one_item_and_none_give_finite_values_and_gradients(self, output: str, text: bool) -> None:
        student = self.build(output, text).train()
        history = torch.full((2, L), PAD)
        history[0, -1] = 3
        scores = student(history)
        scores.sum().backward()
        assert torch.isfinite(scores).all()
        assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)

    def test_the_gradient_reaches_every_weight(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).train(), self.histories()
        batch = Batch(history=history, target=torch.arange(B) % V, row=torch.arange(B))
        hidden = student.encode(history, generator=torch_generator(0, "dropout"))
        BCELoss()(student, hidden, batch, torch_generator(0, "negatives")).backward()
        silent = [n for n, p in student.named_parameters() if p.grad is None or not p.grad.abs().max() > 1e-9]
        assert silent == []

    def test_scoring_by_gather_equals_scoring_everything(self, output: str, text: bool) -> None:
        student, history = self.build(output, text), self.histories()
        items = torch.randint(V, (B, 7), generator=torch_generator(0, "items"))
        for training in (True, False):
            student.train(training)
            hidden = student.encode(history, generator=torch_generator(0, "dropout"))
            scores = student.scores(hidden)
            assert scores.shape == (B, V)
            torch.testing.assert_close(student.score_items(hidden, items), scores.gather(1, items))
            with torch.no_grad():
                torch.testing.assert_close(student.score_items(hidden, items), scores.gather(1, items))

    def test_the_generator_decides_the_first_weights(self, output: str, text: bool) -> None:
        torch.manual_seed(1)
        one = self.build(output, text).state_dict()
        state = torch.random.get_rng_state()
        same = self.build(output, text).state_dict()
        assert torch.equal(state, torch.random.get_rng_state())
        other = self.build(output, text, seed=2).state_dict()
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)

    def test_every_weight_is_drawn(self, output: str, text: bool) -> None:
        student = self.build(output, text)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.fill_(torch.nan)
        student.initialise(torch_generator(1, "student"))
        assert all(torch.isfinite(parameter).all() for parameter in student.parameters())
        fresh = self.build(output, text).state_dict()
        assert all(torch.equal(value, fresh[name]) for name, value in student.state_dict().items())

    def test_the_folded_table_scores_the_same_without_text(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        with torch.no_grad():
            expected = student(history)
        plain = ItemTable(num_items=V, dim=16, output=output)  # type: ignore[arg-type]  # a parameter of the test
        plain.load_state_dict(
            {k: v for k, v in student.table.state_dict().items() if "projector" not in k}
            | {"offset": student.table.fold()}
        )
        student.table = plain
        torch.testing.assert_close(student.eval()(history), expected)

    def test_the_fold_follows_the_weights(self, output: str, text: bool) -> None:
        student, history = self.build(output, text).eval(), self.histories()
        optimiser = torch.optim.Adam(student.parameters(), lr=0.1)
        with torch.no_grad():
            before = student(history)
        student(history).square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            after = student(history)
        assert not torch.allclose(before, after)
        torch.testing.assert_close(student(history).detach(), after)

    def test_a_history_that_is_no_matrix_is_refused(self, output: str, text: bool) -> None:
        student = self.build(output, text)
        for history in (torch.zeros(L, dtype=torch.long), torch.zeros(3, 0, dtype=torch.long)):
            with pytest.raises(ValueError, match="histories must be"):
                student.encode(history)
