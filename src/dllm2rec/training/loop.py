"""The one training loop. It knows no method by name and never sees the test split."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import number_of
from dllm2rec.core.files import remove_leftovers
from dllm2rec.core.progress import Advance, progress_bar
from dllm2rec.core.seeding import torch_generator
from dllm2rec.core.settings import Settings
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch, batches
from dllm2rec.distillation.base import Distiller
from dllm2rec.evaluation.demand import subsample
from dllm2rec.evaluation.metrics import METRIC, TOP, summary
from dllm2rec.evaluation.ranks import rank_targets
from dllm2rec.losses.base import Loss, SharedScorer
from dllm2rec.losses.checks import NotFiniteError
from dllm2rec.students.base import Student
from dllm2rec.training.checkpoint import (
    LATEST,
    Halfway,
    Place,
    Progress,
    load_checkpoint,
    load_halfway,
    load_student_weights,
    save_best,
    save_checkpoint,
    save_halfway,
)
from dllm2rec.training.runlog import write_log

ENOUGH_STEPS, EPOCHS = 2000, (4, 50)
SCORES_AN_EPOCH = 1_000_000_000
"""An epoch is judged by as many validation examples as make about so many scores, evenly over their time."""
SECONDS_KEPT = 300.0
"""After so long an epoch writes down how far it is."""


class FitSettings(Settings):
    """How a student is trained.

    Attributes:
        epochs: maximum number of passes over the training examples; None takes as many as make
            about 2,000 steps, but at least 4 and at most 50.
        batch_size: examples a step.
        learning_rate: of the optimiser; its peak, where it changes.
        warm_up: share of all steps in which the learning rate rises linearly to its peak.
        decay: it stays `constant` after that, or falls along a `cosine` to a fiftieth of the peak at the last of
            `epochs`.
        weight_decay: `adam` adds it to the gradient (as the paper does), `adamw` takes it off the weights.
        optimizer: which of the two.
        betas: its decay rates of the mean and of the mean square of the gradient.
        patience: epochs without a better validation NDCG@20 after which training ends.
        clip_norm: largest norm of the gradient; None does not clip.
    """

    epochs: PositiveInt | None = 100
    batch_size: PositiveInt = 256
    learning_rate: PositiveFloat = 1e-3
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.0
    decay: Literal["constant", "cosine"] = "constant"
    weight_decay: NonNegativeFloat = 0.0
    optimizer: Literal["adam", "adamw"] = "adam"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    patience: PositiveInt = 5
    clip_norm: Annotated[float, Field(gt=0)] | None = None


def fit(
    *,
    student: Student,
    loss: Loss,
    distillers: Sequence[Distiller],
    train: Examples,
    validation: Examples,
    settings: FitSettings,
    run: Path,
    seed: int,
) -> Progress:
    """Train a student until validation stops getting better, and give it the best weights.

    What is random in an epoch follows from the seed and the number of the epoch alone. So a run that is interrupted
    and started again goes on after its last whole epoch, or, where one takes longer than `SECONDS_KEPT`, within it, and
    ends with the same weights as one that was not.

    Args:
        student: initialised; trained in place.
        loss: of the recommendation.
        distillers: each adds a term.
        train: examples to learn from.
        validation: examples that choose the epoch; of a large catalogue a sample, see `SCORES_AN_EPOCH`.
        settings: see there.
        run: directory for `checkpoint/` and `metrics.jsonl`.
        seed: of the order, the negatives and dropout.

    Returns:
        All epochs that were trained, those before an interruption too.

    Raises:
        UserError: the loss is not finite, or the checkpoint in ``run`` is damaged, or of another student or version.
        ValueError: there is nothing to train on or to validate with.
    """
    if len(train) == 0 or len(validation) == 0:
        raise ValueError("training and validation need at least one example each")
    validation = subsample(validation, scores=SCORES_AN_EPOCH, most=len(validation))
    helpers = nn.ModuleList([distiller for distiller in distillers if isinstance(distiller, nn.Module)])
    optimizer = _optimizer([*student.parameters(), *helpers.parameters()], settings)
    remove_leftovers((run / LATEST).parent)
    progress = load_checkpoint(run, student, helpers, optimizer) or Progress()
    if progress.best_epoch == progress.epoch > 0:  # whoever died between the two writes left an older best
        save_best(run, student)
    write_log(run, list(progress.history))
    epochs = settings.epochs or enough_epochs(len(train), batch_size=settings.batch_size)
    step = _Step(
        student=student,
        helpers=helpers,
        loss=loss,
        distillers=distillers,
        optimizer=optimizer,
        settings=settings,
        epochs=epochs,
    )
    steps, told = -(-len(train) // settings.batch_size), f"training {run.name}, at most {number_of(epochs, 'epoch')}"
    if progress.epoch:
        told += f", resumed after epoch {progress.epoch}"
    halfway = load_halfway(run, progress.epoch + 1)
    completed = steps * progress.epoch + (0 if halfway is None else halfway.place.steps)
    with progress_bar(told, steps * epochs, completed=completed) as advance:
        while not (progress.epoch >= epochs or progress.over(patience=settings.patience)):
            progress = _epoch(step, train, validation, progress, halfway, run=run, seed=seed, advance=advance)
            halfway = None
            _show(advance, progress.history[-1])
    load_student_weights(student, run)
    student.eval()
    return progress


def enough_epochs(examples: int, *, batch_size: int) -> int:
    """Return how many passes make about `ENOUGH_STEPS`: many over a small log, but neither too few nor too many.

    >>> [enough_epochs(examples, batch_size=512) for examples in (10_000, 80_000, 130_000, 350_000)]
    [50, 13, 8, 4]
    """
    fewest, most = EPOCHS
    return max(fewest, min(most, -(-ENOUGH_STEPS // -(-examples // batch_size))))


@dataclass(frozen=True, kw_only=True)
class _Step:
    student: Student
    helpers: nn.ModuleList
    loss: Loss
    distillers: Sequence[Distiller]
    optimizer: torch.optim.Optimizer
    settings: FitSettings
    epochs: int

    @property
    def weights(self) -> list[nn.Parameter]:
        """All that is trained."""
        return [*self.student.parameters(), *self.helpers.parameters()]

    def epoch(
        self, train: Examples, epoch: int, halfway: Halfway | None, *, run: Path, seed: int, advance: Advance
    ) -> tuple[float, float]:
        """Train on every example once, or on the rest of them; returns the mean loss and the seconds spent."""
        start = kept = time.perf_counter()
        for distiller in self.distillers:  # the student is as it was when the epoch began
            distiller.epoch(self.student.eval(), epoch, torch_generator(seed, "distiller", epoch))
        self.student.train()
        order, dropout, draws = (torch_generator(seed, name, epoch) for name in ("order", "dropout", "draws"))
        total, done = torch.zeros(()), 0
        if halfway is not None:
            halfway.restore(self.student, self.helpers, self.optimizer, {"dropout": dropout, "draws": draws})
            total, done, start = halfway.total, halfway.place.steps, start - halfway.place.seconds
        size = self.settings.batch_size
        steps = -(-len(train) // size)
        passed = batches(train, batch_size=size, generator=order)
        for step, batch in enumerate(islice(passed, done, None), start=done + 1):
            self._pace((steps * (epoch - 1) + step) / (steps * self.epochs))
            try:
                value = self._loss(batch, dropout, draws)
            except NotFiniteError:
                raise _diverged(epoch) from None
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(value)
            for weight in self.weights:
                if weight.grad is not None and weight.grad.is_sparse:
                    weight.grad = weight.grad.to_dense()
            if self.settings.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.weights, self.settings.clip_norm)
            self.optimizer.step()
            total += value.detach() * len(batch.target)
            advance()
            now = time.perf_counter()
            if now - kept > SECONDS_KEPT and torch.isfinite(total):
                place, kept = Place(epoch=epoch, steps=step, seconds=now - start), now
                random = {"dropout": dropout, "draws": draws}
                save_halfway(run, self.student, self.helpers, self.optimizer, random, place=place, total=total)
        if not (torch.isfinite(total) and all(torch.isfinite(weight).all() for weight in self.weights)):
            raise _diverged(epoch)
        return float(total) / len(train), time.perf_counter() - start

    def _pace(self, done: float) -> None:
        """Set the learning rate for when a share of all steps is done, this one counted."""
        rate = self.settings.learning_rate * pace(done, warm_up=self.settings.warm_up, decay=self.settings.decay)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _loss(self, batch: Batch, dropout: torch.Generator, draws: torch.Generator) -> Tensor:
        hidden = self.student.encode(batch.history, user=batch.user, generator=dropout)
        scorer = SharedScorer(self.student, hidden)
        value = self.loss(scorer, hidden, batch, draws)
        for distiller in self.distillers:
            value = value + distiller(scorer, hidden, batch, draws)
        return value


def _epoch(
    step: _Step,
    train: Examples,
    validation: Examples,
    before: Progress,
    halfway: Halfway | None,
    *,
    run: Path,
    seed: int,
    advance: Advance,
) -> Progress:
    epoch = before.epoch + 1
    loss, trained = step.epoch(train, epoch, halfway, run=run, seed=seed, advance=advance)
    start = time.perf_counter()
    try:
        metrics = summary(rank_targets(step.student.eval(), validation).rank, ks=(TOP,))
    except NotFiniteError:
        raise _diverged(epoch) from None
    line = {"epoch": epoch, "loss": loss, "train_seconds": round(trained, 4), "validation": metrics}
    seconds = before.seconds + trained + time.perf_counter() - start
    progress = Progress(seconds=seconds, history=(*before.history, line))
    write_log(run, list(progress.history))
    save_checkpoint(run, step.student, step.helpers, step.optimizer, progress)
    if progress.best_epoch == epoch:
        save_best(run, step.student)
    return progress


def pace(done: float, *, warm_up: float, decay: Literal["constant", "cosine"]) -> float:
    """Return the learning rate as a share of its peak, when a share ``done`` of all steps is done."""
    if done < warm_up:
        return done / warm_up
    if decay == "constant":
        return 1.0
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2


def _optimizer(weights: list[nn.Parameter], settings: FitSettings) -> torch.optim.Optimizer:
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    return kind(
        weights,
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def _diverged(epoch: int) -> UserError:
    return UserError(
        f"training diverged in epoch {epoch}: the loss is not finite; lower training.learning_rate, "
        "or set training.clip_norm=1.0"
    )


def _show(advance: Advance, line: dict[str, Any]) -> None:
    advance(
        0, note=f"epoch {line['epoch']}: loss {line['loss']:.4f}, validation {METRIC} {line['validation'][METRIC]:.4f}"
    )
