"""How many training examples a second: ours against a plain re-creation of the authors' training loop, same work.

The work: SASRec (64-d, one block), 17,408 items, item vectors of 4,096 values on the input side, histories of 10, batch
256, binary cross-entropy plus the robust term (DROS), ranking distillation of the teacher's ten items with position,
confidence and consistency weights and with the robust term for each candidate (variant "released"), Adam.

The re-creation is written from a description of the authors' code: every step projects the whole item table, scores
the whole catalogue, and computes the loss of each of the ten candidates over the whole batch, robust term included. It
uses the very weights of our student, and `tests/parity` holds it to the same loss and gradients as ours.

    python benchmarks/distillation_speed.py [--steps 20] [--threads 2]
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dllm2rec.core.seeding import numpy_generator, torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.lessons import take_lessons
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.settings import DLLM2RecSettings, adapt_loss
from dllm2rec.knowledge.store import Labels
from dllm2rec.losses.base import Loss, SharedScorer
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.losses.factory import build_loss
from dllm2rec.losses.negatives import uniform_negatives
from dllm2rec.students.factory import build_student
from dllm2rec.students.sasrec import SASRec, SASRecSettings

BATCH = 256
AUTHORS_RATE = 137.0  # examples a second of the authors' own code, measured on two shared cores
ZIPF = 0.65  # about as many distinct items in a batch as Amazon Games has


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training job: the student, what it minimises, and its data."""

    student: SASRec
    loss: Loss
    distillers: list[Distiller]
    settings: DLLM2RecSettings
    base: DROSSettings
    labels: Labels
    popularity: Tensor
    batches: list[Batch]


def make_work(*, num_items: int, vector_size: int, batch: int, batches: int, dropout: float = 0.1) -> Work:
    rng = numpy_generator(0, "benchmark")
    chances = np.arange(1, num_items + 1) ** -ZIPF
    chances /= chances.sum()
    count = batch * batches
    history = torch.from_numpy(rng.choice(num_items, (count, 10), p=chances))
    target = torch.from_numpy(rng.choice(num_items, count, p=chances))
    popularity = torch.bincount(torch.cat([history.flatten(), target]), minlength=num_items)
    ranked = np.stack([rng.choice(num_items, 10, replace=False, p=chances) for _ in range(count)])
    labels = Labels(
        example_id=np.arange(count),
        ranked_items=ranked.astype(np.int32),
        distances=np.sort(rng.normal(5000, 1000, (count, 10)), axis=1).astype(np.float32),
        target_distance=rng.normal(5000, 1000, count).astype(np.float32),
        generated_text=[""] * count,
    )
    settings = DLLM2RecSettings(variant="released")
    base = adapt_loss(DROSSettings(), settings)
    assert isinstance(base, DROSSettings)
    vectors = torch.randn(num_items, vector_size, generator=torch_generator(0, "vectors"))
    student = build_student(
        SASRecSettings(text_weight=0.3, dropout=dropout),
        num_items=num_items,
        history=10,
        item_vectors=vectors,
        generator=torch_generator(0, "student"),
    )
    assert isinstance(student, SASRec)
    loss = build_loss(base, popularity=popularity)
    training = Examples(
        example_id=np.arange(count),
        user=np.arange(count, dtype=np.int32),
        history=history.numpy().astype(np.int32),
        target=target.numpy().astype(np.int32),
        time=np.arange(count),
        num_items=num_items,
    )
    lessons = take_lessons(labels, rows=np.arange(count), training=training, depth=settings.top_k)
    return Work(
        student=student,
        loss=loss,
        distillers=[RankingDistiller(lessons=lessons, settings=settings, loss=loss)],
        settings=settings,
        base=base,
        labels=labels,
        popularity=popularity,
        batches=[Batch(history=history[row], target=target[row], row=row) for row in torch.arange(count).split(batch)],
    )


def our_loss(work: Work, batch: Batch, generator: torch.Generator) -> Tensor:
    hidden = work.student.encode(batch.history, generator=generator)
    scorer = SharedScorer(work.student, hidden)
    loss = work.loss(scorer, hidden, batch, generator)
    for distiller in work.distillers:
        loss = loss + distiller(scorer, hidden, batch, generator)
    return loss


class ReleasedLoop:
    """The authors' way to the same loss, with the weights of our student."""

    def __init__(self, work: Work) -> None:
        self.work = work
        counts = work.popularity.double() + 1
        self.popularity = ((counts / counts.sum()) ** 0.05).float()
        self.candidates = torch.from_numpy(work.labels.ranked_items).long()
        distances = torch.from_numpy(work.labels.distances).double()
        residuals = distances - distances.median(dim=1, keepdim=True).values
        self.distances = (residuals / (1.4826 * residuals.abs().median())).clamp(-3, 3).float()

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of a batch, a scalar."""
        student, base, settings = self.work.student, self.work.base, self.work.settings
        hidden = self._encode(batch.history, generator)
        output = hidden @ student.table.output_weight.T + student.table.output_bias
        total = self._base_loss(output, batch.target, self._negative(batch, generator), base)
        negative = self._negative(batch, generator)
        weights = self._weights(output.detach(), batch.row)
        distilled = 0.0
        for place in range(settings.top_k):
            item = self.candidates[batch.row, place].unsqueeze(1)
            positive = -torch.log(torch.sigmoid(output.gather(1, item)))
            pushed = -torch.log(torch.sigmoid(1 - output.gather(1, negative)))
            terms = positive + pushed + base.alpha * self._robust(output, item, base.beta)
            distilled = distilled + (weights[:, place : place + 1] * terms).mean()
        return total + settings.lambda_d * distilled

    def _negative(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return uniform_negatives(batch.target, num_items=self.work.student.num_items, count=1, generator=generator)

    def _encode(self, history: Tensor, generator: torch.Generator) -> Tensor:
        student, table = self.work.student, self.work.student.table
        every_item = table.offset + table.text_weight * table.projector(table.item_vectors)
        mask = (history != student.num_items).unsqueeze(-1).float()
        length = history.shape[1]
        states = every_item[history.clamp(max=student.num_items - 1)] * mask
        states = states + student.positions(torch.arange(length - 1, -1, -1))
        states = self._dropout(states, generator) * mask
        block = student.blocks[0]
        normed = block.attention_norm(states)
        logits = block.query(normed) @ block.key(states).transpose(1, 2) / math.sqrt(student.dim)
        allowed = torch.ones(length, length).tril().bool() & mask.squeeze(-1).bool().unsqueeze(1)
        attention = torch.softmax(logits.masked_fill(~allowed, -1e30), dim=-1)
        states = normed + self._dropout(attention, generator) @ block.value(states)
        normed = block.forward_norm(states)
        inner = self._dropout(torch.relu(block.inner(normed)), generator)
        states = (normed + self._dropout(block.outer(inner), generator)) * mask
        return student.norm(states)[:, -1]

    def _dropout(self, values: Tensor, generator: torch.Generator) -> Tensor:
        keep = 1 - self.work.student.dropout
        if keep == 1:
            return values
        return values * torch.empty_like(values).bernoulli_(keep, generator=generator) / keep

    def _base_loss(self, output: Tensor, target: Tensor, negative: Tensor, base: DROSSettings) -> Tensor:
        scores = torch.cat([output.gather(1, target.unsqueeze(1)), output.gather(1, negative)])
        labels = torch.cat([torch.ones(len(target), 1), torch.zeros(len(target), 1)])
        entropy = F.binary_cross_entropy_with_logits(scores, labels)
        return entropy + base.alpha * self._robust(output, target.unsqueeze(1), base.beta).mean()

    def _robust(self, output: Tensor, item: Tensor, beta: float) -> Tensor:
        squares = torch.mul(output * output, self.popularity).gather(1, item)
        moved = torch.mul((output - 1) * (output - 1), self.popularity).gather(1, item)
        everything = torch.sum(torch.exp(torch.mul(output * output, self.popularity) / beta), dim=1, keepdim=True)
        inner = everything - torch.exp(squares / beta) + torch.exp(moved / beta)
        return torch.log(inner + 1e-24)

    def _weights(self, output: Tensor, row: Tensor) -> Tensor:
        settings, candidates = self.work.settings, self.candidates[row]
        position = torch.exp(-torch.arange(1, settings.top_k + 1) / settings.beta)
        confidence = torch.exp(-self.distances[row])
        top = torch.topk(output, settings.top_k, dim=1).indices
        agrees = (candidates.unsqueeze(2) == top.unsqueeze(1)).any(dim=2).float()
        weights = settings.gamma_position * position / position.sum()
        weights = weights + settings.gamma_confidence * confidence / confidence.sum(dim=1, keepdim=True)
        weights = weights + settings.gamma_consistency * agrees
        return weights / weights.sum(dim=1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Training examples a second, by the clock and by processor time (steadier where others use the machine too)."""

    wall: float
    processor: float


def measure(work: Work, loss: Callable[[Batch, torch.Generator], Tensor], steps: int) -> Speed:
    """Take the median over the steps, after one step to warm up."""
    generator = torch_generator(0, "steps")
    optimiser = torch.optim.Adam(work.student.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
    seconds = []
    for step in range(steps + 1):
        batch = work.batches[step % len(work.batches)]
        start = time.perf_counter(), time.process_time()
        optimiser.zero_grad()
        loss(batch, generator).backward()
        optimiser.step()
        seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = len(work.batches[0].row) / np.median(seconds[1:], axis=0)
    return Speed(wall=float(wall), processor=float(processor))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="steps of ours in each of three rounds")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rounds = []
    for _ in range(3):  # in turn, so that a busy moment of the machine meets both
        work = make_work(num_items=17_408, vector_size=4_096, batch=BATCH, batches=8)
        work.student.train()
        ours = measure(work, partial(our_loss, work), arguments.steps)
        released = measure(work, ReleasedLoop(work).loss, max(3, arguments.steps // 5))
        rounds.append((ours.wall, released.wall, ours.processor / released.processor))
        print(f"ours {ours.wall:6.0f} examples/s   re-creation {released.wall:5.0f} examples/s", flush=True)
    fast, slow, processor = np.median(rounds, axis=0)
    print(f"median: ours {fast:.0f} examples/s, re-creation {slow:.0f} examples/s")
    print(f"ratio: {fast / slow:.1f} by the clock, {processor:.1f} by processor time")
    print(f"against {AUTHORS_RATE:.0f} examples/s, once measured of the authors' own code: {fast / AUTHORS_RATE:.1f}")


if __name__ == "__main__":
    main()
