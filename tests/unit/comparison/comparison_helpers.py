"""Groups, teachers and evidence whose ranks are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dllm2rec.comparison.evidence import Evidence, Group, Ranked, Taught
from dllm2rec.data import Dataset
from dllm2rec.distillation.methods import MethodSettings, NoMethod
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.evaluation.metrics import ndcg
from dllm2rec.evaluation.ranks import Ranks
from dllm2rec.knowledge import Knowledge, KnowledgeManifest, Labels
from dllm2rec.settings.config import TrainSettings
from dllm2rec.settings.protocol import Protocol
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.students.transformer import TransformerSettings
from dllm2rec.teachers.merging import MergedSource, Mixture
from dllm2rec.workflow.runs import Run, Source, make_config

Rank = NDArray[np.float64]


def ranked(dataset: Dataset, rank: Rank) -> Ranks:
    ids = dataset.examples("test").example_id[: len(rank)]
    return Ranks(example_id=ids, rank=rank, top_items=None)


def group(
    dataset: Dataset,
    student: str,
    ranks: Sequence[Rank],
    *,
    taught: bool = False,
    protocol: Protocol = "paper",
    dim: int = 64,
    validation: float | None = None,
    by: MethodSettings | None = None,
    knowledge: str | None = None,
) -> Group:
    student_settings = SASRecSettings(dim=dim) if protocol == "paper" else TransformerSettings()
    method = by or (DLLM2RecSettings() if taught else NoMethod())
    runs = tuple(
        Run(
            Path("runs") / f"{student}{taught}{seed}",
            make_config(
                student=student,
                method=method.kind if by else "taught" if taught else "plain",
                seed=seed,
                settings=TrainSettings(student=student_settings, method=method, protocol=protocol),
                dataset=Source(path=dataset.path, hash=dataset.content_hash, name="small"),
                knowledge=None if knowledge is None else Source(path=Path(knowledge), hash=knowledge, name=knowledge),
            ),
        )
        for seed in range(1, len(ranks) + 1)
    )
    return Group(
        label=runs[0].config.label,
        runs=runs,
        ranks=tuple(ranked(dataset, rank) for rank in ranks),
        validation=float(np.mean([ndcg(rank, 20) for rank in ranks])) if validation is None else validation,
        seconds_per_1000=0.5,
    )


def evidence(
    dataset: Dataset,
    *groups: Group,
    teachers: tuple[Taught, ...] = (),
    mixtures: Mapping[str, Mixture] | None = None,
) -> Evidence:
    count = len(dataset.examples("test"))
    return Evidence(
        dataset=dataset,
        split="test",
        mask_history=False,
        examples=dataset.examples("test"),
        groups=groups,
        references={
            "popularity": Ranked(ranks=ranked(dataset, np.full(count, 3.0)), validation=0.5, seconds_per_1000=0.1)
        },
        teachers=teachers,
        missing=(),
        mixtures=mixtures or {},
    )


def mixture(*names: str) -> Mixture:
    """Merged of sources with these names, which are their hashes, too."""
    sources = tuple(MergedSource(hash=name, teacher=name, model="", temperature=1.0, weight=0.5) for name in names)
    return Mixture(sources=sources, vectors="first", validation_examples=1, calibration_error=0.0)


def teacher(dataset: Dataset, labelled: int) -> Taught:
    """Puts the target first for each of the first examples."""
    examples = dataset.examples("test")
    count = len(examples)
    label_rows = np.where(np.arange(count) < labelled, np.arange(count), -1)
    manifest = KnowledgeManifest(
        dataset_hash=dataset.content_hash,
        num_items=dataset.num_items,
        teacher="oracle",
        depth=2,
    )
    knowledge = Knowledge(path=Path("k"), manifest=manifest, labels=Labels.empty(2), item_vectors=None)
    return Taught(
        name="oracle",
        knowledge=knowledge,
        label_rows=label_rows,
        ranks=ranked(dataset, np.ones(labelled)),
        seconds_per_1000=100.0,
    )
