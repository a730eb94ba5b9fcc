from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import torch_generator
from dllm2rec.core.tensors import read_tensors, save_tensors
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Distiller, Encoder
from dllm2rec.evaluation.metrics import hit_rate
from dllm2rec.evaluation.ranks import Ranks, rank_targets
from dllm2rec.losses.base import Scorer
from dllm2rec.losses.bce import BCELoss
from dllm2rec.losses.factory import build_loss
from dllm2rec.losses.sampled_softmax import SampledSoftmaxSettings
from dllm2rec.losses.softmax import SoftmaxSettings
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.training import FitSettings, checkpoint, fit
from dllm2rec.training import loop as loop_module
from dllm2rec.training.checkpoint import load_student_weights
from dllm2rec.training.loop import pace
from dllm2rec.training.runlog import read_log

ITEMS = 12


def cyclic(count: int, offset: int = 0) -> Examples:
    """After item i comes item i + 1."""
    last = (np.arange(count) + offset) % ITEMS
    history = np.stack([(last - 2) % ITEMS, (last - 1) % ITEMS, last], 1).astype(np.int32)
    return Examples(
        example_id=np.arange(count, dtype=np.int64) + 1000 * offset,
        user=np.arange(count, dtype=np.int32),
        history=history,
        target=((last + 1) % ITEMS).astype(np.int32),
        time=np.arange(count, dtype=np.int64),
        num_items=ITEMS,
    )


def student(dropout: float = 0.2) -> Student:
    settings = SASRecSettings(dim=8, dropout=dropout)
    generator = torch_generator(0, "init")
    return build_student(settings, num_items=ITEMS, history=3, item_vectors=None, generator=generator)


def train(
    run: Path, *, epochs: int | None = 4, distillers: tuple[Distiller, ...] = (), seed: int = 1, **changes: object
) -> tuple[Student, checkpoint.Progress]:
    model = student()
    settings = FitSettings(epochs=epochs, batch_size=16, learning_rate=0.01, patience=50).model_copy(update=changes)
    result = fit(
        student=model,
        loss=BCELoss(negatives=1, reduction="sum"),
        distillers=distillers,
        train=cyclic(70),
        validation=cyclic(20, offset=5),
        settings=settings,
        run=run,
        seed=seed,
    )
    return model, result


def weights(model: Student) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def latest(run: Path) -> bytes:
    return (run / checkpoint.LATEST).read_bytes()


class KilledError(Exception):
    """Stands for the end of a process."""


def test_epochs_that_are_left_open_make_enough_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy examples are five steps of sixteen; sixteen steps are four epochs, and so the whole schedule."""
    monkeypatch.setattr("dllm2rec.training.loop.ENOUGH_STEPS", 16)
    found, result = train(tmp_path / "open", epochs=None, decay="cosine")
    assert result.epoch == 4
    assert_same(weights(found), weights(train(tmp_path / "said", epochs=4, decay="cosine")[0]))


def test_a_student_learns_a_cycle_by_heart(tmp_path: Path) -> None:
    model = student(dropout=0.0)
    fit(
        student=model,
        loss=build_loss(SoftmaxSettings(), popularity=torch.ones(ITEMS)),
        distillers=(),
        train=cyclic(60),
        validation=cyclic(24),
        settings=FitSettings(epochs=60, batch_size=16, learning_rate=0.02, patience=60),
        run=tmp_path,
        seed=0,
    )
    assert not model.training
    assert hit_rate(rank_targets(model, cyclic(24)).rank, 1).mean() == 1.0


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", epochs=5)
    train(tmp_path / "parts", epochs=2)
    resumed, result = train(tmp_path / "parts", epochs=5)
    assert_same(weights(whole), weights(resumed))
    assert [line["epoch"] for line in result.history] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("moment", ["save_best", "write_log", "save_checkpoint"])
def test_a_kill_between_the_files_of_an_epoch_changes_nothing(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train(tmp_path / "whole")
    original, calls = getattr(loop_module, moment), 0

    def killed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == (3 if moment == "write_log" else 2):  # the log is written once before the first epoch
            raise KilledError
        original(*arguments)

    monkeypatch.setattr(loop_module, moment, killed)
    with pytest.raises(KilledError):
        train(tmp_path / "killed")
    monkeypatch.setattr(loop_module, moment, original)
    resumed, result = train(tmp_path / "killed")
    assert_same(weights(whole), weights(resumed))
    assert [line["epoch"] for line in read_log(tmp_path / "killed")] == [1, 2, 3, 4]
    assert result.epoch == 4


@pytest.mark.parametrize("moment", ["save_checkpoint", "save_best"])
def test_the_weights_are_those_of_the_epoch_that_the_log_calls_best(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine repeats an epoch not to the bit: what looked best before the kill may not be so after it."""
    values = iter([0.1, 0.5, 0.05])
    monkeypatch.setattr(loop_module, "summary", lambda *_, **__: {"NDCG@20": next(values)})
    first, _ = train(tmp_path / "first", epochs=1)
    values = iter([0.1, 0.5, 0.05, 0.04, 0.03])
    original, calls = getattr(loop_module, moment), 0

    def killed(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KilledError
        original(*arguments)

    monkeypatch.setattr(loop_module, moment, killed)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", epochs=3)
    monkeypatch.setattr(loop_module, moment, original)
    resumed, result = train(tmp_path / "killed", epochs=3)
    if moment == "save_checkpoint":  # epoch 2 was lost, and is worse this time
        assert result.best_epoch == 1
        assert_same(weights(resumed), weights(first))
    else:
        assert result.best_epoch == 2
        values = iter([0.1, 0.5])
        assert_same(weights(resumed), weights(train(tmp_path / "second", epochs=2)[0]))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first, result = train(tmp_path)
    before = latest(tmp_path)
    second, again = train(tmp_path)
    assert latest(tmp_path) == before
    assert again == result
    assert_same(weights(first), weights(second))


def test_the_same_seed_gives_the_same_ranks_whatever_the_global_state(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, _ = train(tmp_path / "a")
    torch.manual_seed(2)
    second, _ = train(tmp_path / "b")
    other, _ = train(tmp_path / "c", seed=2)
    ranks = [rank_targets(model, cyclic(20, offset=5), top_k=5) for model in (first, second, other)]
    assert np.array_equal(ranks[0].rank, ranks[1].rank)
    assert np.array_equal(ranks[0].top_items, ranks[1].top_items)
    assert any(not torch.equal(a, b) for a, b in zip(weights(first).values(), weights(other).values(), strict=True))


class Recorder:
    """A distiller that adds nothing and remembers what it was asked."""

    def __init__(self, weight: float = 0.0) -> None:
        self.epochs: list[int] = []
        self.rows = 0
        self._weight = weight

    def epoch(self, student: Encoder, number: int, generator: torch.Generator) -> None:
        self.epochs.append(int(generator.initial_seed()))

    def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
        self.rows += len(batch.row)
        return self._weight * scorer.scores(hidden).sum()


def test_a_distiller_of_weight_zero_is_the_plain_run_bit_for_bit(tmp_path: Path) -> None:
    plain, _ = train(tmp_path / "plain")
    recorder = Recorder()
    taught, _ = train(tmp_path / "taught", distillers=(recorder,))
    assert_same(weights(plain), weights(taught))
    assert len(set(recorder.epochs)) == 4
    assert recorder.rows == 4 * 70
    other, _ = train(tmp_path / "other", distillers=(Recorder(weight=0.1),))
    assert not torch.equal(next(iter(weights(plain).values())), next(iter(weights(other).values())))


def test_early_stopping_restores_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.1, 0.5, 0.3, 0.5, 0.2])
    monkeypatch.setattr(loop_module, "summary", lambda *_, **__: {"NDCG@20": next(values)})
    states: list[dict[str, Tensor]] = []
    original = loop_module.save_checkpoint

    def remember(run: Path, model: Student, *rest: Any) -> None:
        states.append(weights(model))
        original(run, model, *rest)

    monkeypatch.setattr(loop_module, "save_checkpoint", remember)
    model = student()
    result = fit(
        student=model,
        loss=BCELoss(negatives=1, reduction="sum"),
        distillers=(),
        train=cyclic(40),
        validation=cyclic(10),
        settings=FitSettings(epochs=50, batch_size=16, learning_rate=0.01, patience=3),
        run=tmp_path,
        seed=0,
    )
    assert (result.best_epoch, result.epoch) == (2, 5)
    assert_same(weights(model), states[1])
    fresh = student()
    load_student_weights(fresh, tmp_path)
    assert_same(weights(fresh), states[1])


def test_of_equal_epochs_the_first_is_the_best() -> None:
    progress = checkpoint.Progress(history=tuple({"validation": {"NDCG@20": value}} for value in (0.3, 0.3)))
    assert progress.best_epoch == 1
    assert progress.over(patience=1)
    assert not progress.over(patience=2)


def test_a_loss_that_is_not_finite_says_what_to_lower(tmp_path: Path) -> None:
    class Broken:
        def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
            return hidden.sum() * float("nan")

    with pytest.raises(UserError, match=r"diverged in epoch 1: .*lower training\.learning_rate"):
        fit(
            student=student(),
            loss=Broken(),
            distillers=(),
            train=cyclic(10),
            validation=cyclic(10),
            settings=FitSettings(epochs=1),
            run=tmp_path,
            seed=0,
        )


def test_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one example each"):
        fit(
            student=student(),
            loss=BCELoss(negatives=1, reduction="sum"),
            distillers=(),
            train=cyclic(0),
            validation=cyclic(3),
            settings=FitSettings(),
            run=tmp_path,
            seed=0,
        )


def test_checkpoints_that_are_damaged_missing_or_of_another_student(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained weights"):
        load_student_weights(student(), tmp_path)
    train(tmp_path, epochs=1)
    other = build_student(
        SASRecSettings(dim=4), num_items=ITEMS, history=3, item_vectors=None, generator=torch_generator(0, "x")
    )
    with pytest.raises(UserError, match="another student"):
        load_student_weights(other, tmp_path)
    file = tmp_path / checkpoint.LATEST
    save_tensors(file, read_tensors(file)[0], {"state": '{"epoch": 1}'})
    with pytest.raises(UserError, match=r"latest\.safetensors: not a checkpoint of this version; remove .* again"):
        train(tmp_path, epochs=2)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"latest\.safetensors: damaged"):
        train(tmp_path, epochs=2)


def test_a_real_loss_that_diverges_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="training diverged in epoch"):
        fit(
            student=student(),
            loss=BCELoss(negatives=1, reduction="sum"),
            distillers=(),
            train=cyclic(200),
            validation=cyclic(10),
            settings=FitSettings(epochs=9, batch_size=16, learning_rate=1e30),
            run=tmp_path,
            seed=0,
        )


@pytest.mark.parametrize("output", ["separate", "tied"])
def test_sparse_gradients_of_a_large_table_train_as_dense_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: Literal["separate", "tied"]
) -> None:
    vectors = torch.randn(ITEMS, 5, generator=torch_generator(0, "vectors"))

    def trained(run: Path, *, item_vectors: Tensor | None) -> tuple[dict[str, Tensor], bool]:
        settings, generator = SASRecSettings(dim=8, output=output), torch_generator(0, "init")
        model = build_student(settings, num_items=ITEMS, history=3, item_vectors=item_vectors, generator=generator)
        fit(
            student=model,
            loss=build_loss(SampledSoftmaxSettings(negatives=4), popularity=torch.ones(ITEMS)),
            distillers=(),
            train=cyclic(70),
            validation=cyclic(20, offset=5),
            settings=FitSettings(epochs=3, batch_size=16, clip_norm=1.0),
            run=run,
            seed=1,
        )
        looked_up = model.train().embed(torch.tensor([[1, 2]])).sum()
        model.zero_grad()
        torch.autograd.backward(looked_up)
        assert model.table.offset is not None
        assert model.table.offset.grad is not None
        return weights(model), model.table.offset.grad.is_sparse

    for name, given in (("text", vectors), ("none", None)):
        dense, was_sparse = trained(tmp_path / f"{name}-dense", item_vectors=given)
        assert not was_sparse
        with monkeypatch.context() as patch:
            patch.setattr("dllm2rec.students.item_table.LARGE", ITEMS - 1)
            sparse, was_sparse = trained(tmp_path / f"{name}-sparse", item_vectors=given)
        assert was_sparse
        torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-6)


def test_a_large_catalogue_is_validated_on_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred examples of twelve items would be 1,200 scores; a third of them, evenly, choose the epoch."""
    monkeypatch.setattr("dllm2rec.training.loop.SCORES_AN_EPOCH", 400)
    monkeypatch.setattr("dllm2rec.evaluation.demand.FEWEST_EXAMPLES", 5)
    judged: list[np.ndarray] = []

    def ranked(model: Student, examples: Examples) -> Ranks:
        judged.append(examples.example_id)
        return rank_targets(model, examples)

    monkeypatch.setattr(loop_module, "rank_targets", ranked)
    fit(
        student=student(),
        loss=BCELoss(negatives=1, reduction="sum"),
        distillers=(),
        train=cyclic(70),
        validation=cyclic(100),
        settings=FitSettings(epochs=1),
        run=tmp_path,
        seed=1,
    )

    [ids] = judged
    assert len(ids) == 400 // ITEMS
    assert {3, 4} >= set(np.diff(ids))
    assert (ids[0], ids[-1]) == (0, 99)


def test_the_log_is_written_from_the_checkpoint(tmp_path: Path) -> None:
    _, result = train(tmp_path, epochs=2)
    log = tmp_path / "metrics.jsonl"
    whole = log.read_text()
    assert [line["epoch"] for line in read_log(tmp_path)] == [1, 2]
    log.unlink()
    assert train(tmp_path, epochs=2)[1].history == result.history
    assert log.read_text() == whole


def test_the_pace_rises_to_its_peak_and_falls_along_a_cosine() -> None:
    assert [pace(done, warm_up=0.2, decay="cosine") for done in (0.1, 0.2)] == pytest.approx([0.5, 1.0])
    assert pace(0.6, warm_up=0.2, decay="cosine") == pytest.approx(0.51)
    assert pace(1.0, warm_up=0.2, decay="cosine") == pytest.approx(0.02)
    assert [pace(done, warm_up=0.0, decay="constant") for done in (0.01, 0.5, 1.0)] == [1.0, 1.0, 1.0]


def test_a_resumed_run_keeps_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after two of four epochs: the learning rate goes on where it was."""
    rates: list[float] = []

    def noted(done: float, **settings: object) -> float:
        rates.append(pace(done, **settings))  # type: ignore[arg-type]
        return rates[-1]

    monkeypatch.setattr(loop_module, "pace", noted)
    whole, _ = train(tmp_path / "whole", warm_up=0.3, decay="cosine")
    expected, rates[:] = list(rates), []
    saved = loop_module.save_checkpoint

    def dying(*state: object) -> None:
        saved(*state)  # type: ignore[arg-type]
        if isinstance(state[-1], checkpoint.Progress) and state[-1].epoch == 2:
            raise KilledError

    monkeypatch.setattr(loop_module, "save_checkpoint", dying)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", warm_up=0.3, decay="cosine")
    monkeypatch.setattr(loop_module, "save_checkpoint", saved)
    resumed, _ = train(tmp_path / "killed", warm_up=0.3, decay="cosine")
    assert len(expected) == 4 * 5
    assert max(expected) <= 1.0
    assert expected == sorted(expected[:6]) + sorted(expected[6:], reverse=True)
    assert rates == expected
    assert_same(weights(whole), weights(resumed))


def test_what_diverges_only_at_validation_is_the_users_to_mend(tmp_path: Path) -> None:
    class Quiet:
        """Says nothing of what it did to the weights."""

        def __call__(self, scorer: Scorer, hidden: Tensor, batch: Batch, generator: torch.Generator) -> Tensor:
            with torch.no_grad():
                model.table.offset.fill_(1e38)
            return hidden.sum() * 0.0

    model = student()
    with pytest.raises(UserError, match=r"diverged in epoch 1: .*lower training\.learning_rate"):
        fit(
            student=model,
            loss=Quiet(),
            distillers=(),
            train=cyclic(10),
            validation=cyclic(10),
            settings=FitSettings(epochs=1),
            run=tmp_path,
            seed=0,
        )


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    left = tmp_path / "checkpoint" / ".latest.safetensors.abc.tmp"
    left.mkdir()
    (left / "latest.safetensors").write_bytes(b"half")
    train(tmp_path, epochs=2)
    assert sorted(file.name for file in left.parent.iterdir()) == ["best.safetensors", "latest.safetensors"]
