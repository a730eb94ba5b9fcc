"""Verb `evaluate`: ranks of a run over the whole catalogue."""

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, Split
from dllm2rec.evaluation.latency import seconds_per_1000
from dllm2rec.evaluation.metrics import TOP, coverage, summary
from dllm2rec.evaluation.ranks import Ranks, rank_targets
from dllm2rec.knowledge.store import Knowledge
from dllm2rec.workflow.building import knowledge_of, load_student
from dllm2rec.workflow.runs import Evaluation, Run


def evaluate(
    run: Run,
    *,
    split: Split = "test",
    mask_history: bool = False,
    dataset: Dataset | None = None,
    knowledge: Knowledge | None = None,
) -> Evaluation:
    """Rank the targets of a split with the best weights of a run; what was ranked before is not ranked again.

    Args:
        run: finished.
        split: validation or test.
        mask_history: leave items of the history out; the paper does not.
        dataset: that the run was trained on; by default it is looked for where it lay then.
        knowledge: that taught the run, if any; the same.

    Raises:
        UserError: training has not ended, or the dataset is gone or another.
    """
    if dataset is not None:  # before what is cached: it would be of another
        dataset_of(run, dataset)
    if knowledge is not None:
        knowledge_of(run, knowledge)
    done = run.finished().evaluated(split, mask_history=mask_history)
    if done is not None and run.has_ranks(split, mask_history=mask_history):
        return done
    again = f"dllm2rec evaluate {run.path}{'' if split == 'test' else f' --split {split}'}"
    again += " --mask-history" if mask_history else ""
    dataset = dataset_of(run, dataset, option=f"{again} --dataset")
    student = load_student(run, dataset, knowledge_of(run, knowledge, option=f"{again} --knowledge"))
    examples = dataset.examples(split)
    told = f"ranking by {run.config.label}, seed {run.config.seed}"
    ranks = rank_targets(student, examples, mask_history=mask_history, top_k=TOP, told=told)
    evaluation = Evaluation(
        mask_history=mask_history,
        examples=len(examples),
        metrics=metrics(ranks, dataset),
        seconds_per_1000=seconds_per_1000(student, examples),
    )
    run.write_ranks(split, ranks, mask_history=mask_history)
    run.add_evaluation(evaluation, split)
    return evaluation


def dataset_of(run: Run, dataset: Dataset | None = None, *, option: str = "") -> Dataset:
    """Return the dataset that a run was trained on.

    Args:
        run: which.
        dataset: by default it is looked for where it lay then.
        option: how a user says where it is, see `Run.locate`.

    Raises:
        UserError: it is gone, or another one.
    """
    source = run.config.dataset
    dataset = dataset or Dataset.load(run.locate("dataset", source, option=option))
    if dataset.content_hash != source.hash:
        compared = (
            "" if run.config.continues is None else "; `dllm2rec update` compared it with the run that it continues"
        )
        raise UserError(
            f"{dataset.path}: another dataset (content hash {dataset.content_hash}) than {run.path} was trained on "
            f"({source.hash}){compared}"
        )
    return dataset


def metrics(ranks: Ranks, dataset: Dataset) -> dict[str, float]:
    """Average HR, NDCG and MRR at 5, 10 and 20; add the share of the catalogue that the lists cover."""
    values = summary(ranks.rank)
    if ranks.top_items is not None:
        values[f"coverage@{TOP}"] = coverage(ranks.top_items[:, :TOP], dataset.num_items)
    return values
