"""How long an epoch of each method takes, relative to the same student without a teacher.

The work: SASRec (64-d, one block), 11,758 items, histories of 10, batch 256, binary cross-entropy, Adam; a teacher that
labelled every example with a list of 500 items and gave item vectors of 576 values. Every method has the settings that
it comes with. An epoch is what `fit` does in it without validation: the draws of `epoch`, then a step for each batch.
The time is processor time, which is steadier than the clock where others use the machine too.

    python benchmarks/method_cost.py [--examples 2048] [--rounds 3] [--threads 1] [--methods rrd dcd]
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dllm2rec.core.seeding import numpy_generator, torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import batches
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.cd import CDSettings
from dllm2rec.distillation.dcd import DCDSettings
from dllm2rec.distillation.hint import HintSettings
from dllm2rec.distillation.htd import HTDSettings
from dllm2rec.distillation.kar import KARSettings, fact_vectors, read_with_kar
from dllm2rec.distillation.llm_cf import LLMCFSettings, read_with_llm_cf
from dllm2rec.distillation.methods import MethodSettings, NoMethod, build_method
from dllm2rec.distillation.rd import RDSettings
from dllm2rec.distillation.rrd import RRDSettings
from dllm2rec.distillation.settings import DLLM2RecSettings, adapt_student
from dllm2rec.distillation.unkd import UnKDSettings
from dllm2rec.knowledge.store import Knowledge, KnowledgeManifest, Labels
from dllm2rec.knowledge.texts import Texts
from dllm2rec.losses.base import SharedScorer
from dllm2rec.losses.bce import BCESettings
from dllm2rec.losses.factory import build_loss
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.sasrec import SASRecSettings

ITEMS, HISTORY, DEPTH, VECTOR_SIZE, BATCH = 11_758, 10, 500, 576, 256
ZIPF = 0.65
METHODS: dict[str, MethodSettings] = {
    "plain": NoMethod(),
    "dllm2rec (rankings)": DLLM2RecSettings(embedding=False),
    "dllm2rec (paper)": DLLM2RecSettings(),
    "dllm2rec (released)": DLLM2RecSettings(variant="released"),
    "hint": HintSettings(),
    "htd": HTDSettings(),
    "rd": RDSettings(),
    "cd": CDSettings(),
    "rrd": RRDSettings(),
    "dcd": DCDSettings(),
    "unkd": UnKDSettings(),
    "kar": KARSettings(),
    "llm-cf": LLMCFSettings(),
}


def make_examples(count: int) -> Examples:
    rng = numpy_generator(0, "examples")
    chances = np.arange(1, ITEMS + 1) ** -ZIPF
    chances /= chances.sum()
    return Examples(
        example_id=np.arange(count, dtype=np.int64),
        user=np.arange(count, dtype=np.int32),
        history=rng.choice(ITEMS, (count, HISTORY), p=chances).astype(np.int32),
        target=rng.choice(ITEMS, count, p=chances).astype(np.int32),
        time=np.arange(count, dtype=np.int64),
        num_items=ITEMS,
    )


def make_knowledge(count: int) -> Knowledge:
    rng = numpy_generator(0, "knowledge")
    manifest = KnowledgeManifest(
        dataset_hash="",
        num_items=ITEMS,
        teacher="benchmark",
        depth=DEPTH,
        vector_size=VECTOR_SIZE,
    )
    labels = Labels(
        example_id=np.arange(count),
        ranked_items=rng.random((count, ITEMS), np.float32).argpartition(DEPTH, axis=1)[:, :DEPTH].astype(np.int32),
        distances=np.sort(rng.normal(5000, 1000, (count, DEPTH)), axis=1).astype(np.float32),
        target_distance=rng.normal(5000, 1000, count).astype(np.float32),
        generated_text=[""] * count,
    )
    vectors = rng.normal(size=(ITEMS, VECTOR_SIZE)).astype(np.float32)
    chains = np.arange(0, count, 10)
    texts = {"item": _texts(np.arange(ITEMS)), "user": _texts(np.arange(count)), "chain": _texts(chains)}
    return Knowledge(path=Path("benchmark"), manifest=manifest, labels=labels, item_vectors=vectors, texts=texts)


def _texts(key: NDArray[np.int64]) -> Texts:
    vectors = numpy_generator(0, "texts").normal(size=(len(key), VECTOR_SIZE)).astype(np.float32)
    return Texts(key=key, text=[""] * len(key), vectors=vectors)


class Job:
    """A student with one method, ready to be trained."""

    def __init__(self, settings: MethodSettings, training: Examples, knowledge: Knowledge) -> None:
        popularity = torch.bincount(torch.from_numpy(training.target).long(), minlength=ITEMS)
        self.loss = build_loss(BCESettings(), popularity=popularity)
        self.training, self.number = training, 100  # an epoch after every warm-up
        student, vectors = SASRecSettings(), None
        match settings:
            case DLLM2RecSettings():
                if settings.embedding:
                    vectors = torch.from_numpy(knowledge.item_vectors)
                student = adapt_student(student, settings)
            case KARSettings():
                vectors = torch.from_numpy(fact_vectors(knowledge, ITEMS))
        self.distillers: list[Distiller] = build_method(
            settings,
            knowledge=knowledge,
            rows=np.arange(len(training)),
            training=training,
            loss=self.loss,
            popularity=popularity,
            dim=student.dim,
            generator=torch_generator(0, "method"),
        )
        self.student: Student = build_student(
            student, num_items=ITEMS, history=HISTORY, item_vectors=vectors, generator=torch_generator(0, "student")
        )
        draws = torch_generator(0, "method")
        match settings:
            case KARSettings():
                read_with_kar(self.student, knowledge, settings, num_users=len(training), generator=draws)
            case LLMCFSettings():
                read_with_llm_cf(self.student, knowledge, training, settings, generator=draws)
        own = nn.ModuleList([distiller for distiller in self.distillers if isinstance(distiller, nn.Module)])
        self.optimizer = torch.optim.Adam([*self.student.parameters(), *own.parameters()], lr=1e-3, fused=True)

    def epoch(self) -> tuple[float, float]:
        """Train on every example once; returns the seconds of the draws and of the steps."""
        generator = torch_generator(0, "epoch")
        start = time.process_time()
        for distiller in self.distillers:
            distiller.epoch(self.student.eval(), self.number, generator)
        drawn = time.process_time()
        self.student.train()
        for batch in batches(self.training, batch_size=BATCH, generator=generator):
            hidden = self.student.encode(batch.history, user=batch.user, generator=generator)
            scorer = SharedScorer(self.student, hidden)
            loss = self.loss(scorer, hidden, batch, generator)
            for distiller in self.distillers:
                loss = loss + distiller(scorer, hidden, batch, generator)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        return drawn - start, time.process_time() - drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    training, knowledge = make_examples(arguments.examples), make_knowledge(arguments.examples)
    names = ["plain", *(name for name in arguments.methods if name != "plain")]
    jobs = {name: Job(METHODS[name], training, knowledge) for name in names}
    for job in jobs.values():
        job.epoch()
    # in turn, so that a busy moment of the machine meets all
    rounds = np.array([[job.epoch() for job in jobs.values()] for _ in range(arguments.rounds)])
    draws, steps = np.median(rounds, axis=0).T
    print("| method | draws | steps | epoch, relative to plain |\n| --- | ---: | ---: | ---: |")
    for name, drawn, stepped in zip(names, draws / steps[0], steps / steps[0], strict=True):
        print(f"| {name} | {drawn:.2f} | {stepped:.2f} | {drawn + stepped:.2f} |")


if __name__ == "__main__":
    main()
