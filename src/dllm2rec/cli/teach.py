"""`dllm2rec teach`: a teacher labels a dataset."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dllm2rec.cli.options import (
    Budget,
    Choose,
    DatasetPath,
    Json,
    Limit,
    Out,
    Set,
    SplitNames,
    given,
    show,
    there,
    words_to_stderr,
)
from dllm2rec.cli.teach_options import require_alone, require_once, require_read, require_takers
from dllm2rec.core.errors import UserError, suggest

if TYPE_CHECKING:
    from dllm2rec.data import Dataset, Split
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.settings.teacher import TeacherSettings

SPLITS: "tuple[Split, ...]" = ("train", "validation", "test")
NO_LIMITS = {
    "encoder": "it gives item vectors and labels nothing",
    "texts": "say how many with --set counts.items=N, counts.users=N or counts.chains=N",
    "merged": "it labels what its sources labelled; limit those",
}


def teach(
    *,
    dataset: DatasetPath,
    out: Out,
    teacher: Annotated[
        Literal["bigrec", "retrieval", "encoder", "texts", "popularity", "knn", "text", "blend", "ease", "merged"]
        | None,
        typer.Option(
            show_default="bigrec",
            help="A language model that writes titles (bigrec) or reads histories (retrieval), a sentence encoder "
            "(item vectors only), a language model that writes texts about items and users (for kar and llm-cf), a "
            "baseline (popularity, knn, text, blend, ease), or several teachers merged into one (--from).",
        ),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Language model of bigrec, retrieval and texts: packaged model, directory, GGUF file or hub name.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Sentence encoder of encoder, texts, text and blend: packaged model, directory or hub name.",
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="KNOWLEDGE",
            callback=there,
            help="Knowledge whose item vectors to use for text, blend and --choose, instead of encoding titles.",
        ),
    ] = None,
    sources: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="KNOWLEDGE",
            callback=there,
            help="Knowledge directory to merge; give at least two.",
        ),
    ] = None,
    split: SplitNames = None,
    limit: Limit = None,
    budget: Budget = None,
    choose: Choose = None,
    import_from: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="FILE|DIR",
            callback=there,
            help="Import a language model's answers to `dllm2rec ask` (--llm names it in tables, --model is the "
            "encoder that grounds its titles), or a directory with the knowledge files of the DLLM2Rec authors' code.",
        ),
    ] = None,
    only_new: Annotated[
        Path | None,
        typer.Option(
            metavar="KNOWLEDGE",
            callback=there,
            help="Knowledge of the dataset that DATASET extends: reuse its labels, and let the same teacher label "
            "only the new examples. Needs no other option.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the tuning of bigrec, retrieval and texts, and of the order of examples."),
    ] = None,
    settings: Set = None,
    json: Json = False,
) -> None:
    """Tune a teacher and let it label examples; resumes if it was interrupted.

    Example: dllm2rec teach work/dataset --teacher bigrec --llm smollm2-135m --limit 1000 --out work/knowledge
    """
    from dllm2rec.data import Dataset
    from dllm2rec.knowledge.legacy import import_legacy
    from dllm2rec.knowledge.store import Knowledge
    from dllm2rec.teachers.packaged import DEFAULT_ENCODER
    from dllm2rec.workflow.answers import import_answers
    from dllm2rec.workflow.teaching import teach as run
    from dllm2rec.workflow.teaching import teach_only_new

    opened, say = Dataset.load(dataset), partial(typer.echo, err=True)
    options = {"llm": llm, "model": model, "vectors": vectors, "from": sources, "choose": choose, "seed": seed}
    others = {"teacher": teacher, **options, "split": split, "limit": limit, "budget": budget, "set": settings}
    if only_new is not None:
        require_alone("--only-new", "the same teacher goes on", {"import": import_from, **others})
    elif import_from is not None:
        taken = () if import_from.is_dir() else ("llm", "model")
        require_alone("--import", "files are read", {name: one for name, one in others.items() if name not in taken})
    if budget and split and "train" not in split:
        raise UserError(
            f"--budget {budget}: it is of training examples, and --split leaves these out; give one of them"
        )
    if import_from is not None and import_from.is_dir():
        knowledge = import_legacy(opened, import_from, out=out)
    elif import_from is not None:
        with words_to_stderr():
            knowledge = import_answers(
                opened, import_from, out=out, name=llm or "", model=DEFAULT_ENCODER if model is None else model, say=say
            )
    elif only_new is not None:
        with words_to_stderr():
            knowledge = teach_only_new(opened, Knowledge.load(only_new), out=out)
    else:
        chosen = asked_for(
            opened, teacher or "bigrec", options, split=split, limit=limit or [], budget=budget, settings=settings or []
        )
        with words_to_stderr():
            knowledge = run(opened, chosen, out=out, say=say)
    _tell(knowledge, opened, out=out, json=json)


def asked_for(
    dataset: "Dataset",
    teacher: str,
    options: dict[str, Any],
    *,
    split: list[str] | None,
    limit: list[str],
    budget: str | None,
    settings: list[str],
) -> "TeacherSettings":
    """Turn the options into the settings of a teacher, with limits and budget."""
    require_takers(teacher, options)
    require_once(options, limit, settings)
    values = given(**{name: value for name, value in options.items() if name != "from"})
    if (sources := options["from"]) is not None:
        values["sources"] = [{"kind": "knowledge", "path": path} for path in sources]
    chosen = _chosen(teacher, values, settings)
    if split or limit:
        limits = _limits(dataset, chosen, split or list(SPLITS), limit)
        chosen = _chosen(teacher, {**values, "limits": limits}, settings)
    require_read(teacher, chosen)
    return chosen if budget is None else _with_budget(dataset, chosen, budget, [*limit, *settings])


def _tell(knowledge: "Knowledge", dataset: "Dataset", *, out: Path, json: bool) -> None:
    """Show what was labelled, and what a merged or a blended teacher is made of."""
    from dllm2rec.comparison.diagnosis import describe_blend, describe_mixture
    from dllm2rec.teachers.merging import mixture_of
    from dllm2rec.teachers.reference_teacher import text_weight_of

    manifest = knowledge.manifest
    counts = _counts(dataset, knowledge)
    told = "no labels"
    if manifest.depth:
        told = "labels for " + ", ".join(f"{count:,} {name}" for name, count in counts.items()) + " examples"
        told += f", {manifest.depth:,} items each"
    if knowledge.texts:
        told = "texts about " + ", ".join(f"{len(texts):,} {kind}s" for kind, texts in knowledge.texts.items())
    size = f"item vectors of size {manifest.vector_size}" if manifest.vector_size else "no item vectors"
    show(
        {
            "knowledge": str(out),
            "hash": knowledge.content_hash,
            "labels": counts,
            "texts": {kind: len(texts) for kind, texts in knowledge.texts.items()},
            "text_weight": text_weight_of(knowledge),
            **manifest.model_dump(mode="json"),
        },
        f"{manifest.teacher} {manifest.model}".rstrip() + f": {told}, {size}",
        *describe_mixture(mixture_of(knowledge)),
        *describe_blend(text_weight_of(knowledge)),
        f"knowledge in {out}; what it is worth: dllm2rec doctor {out} --dataset {dataset.path}",
        as_json=json,
    )


def _chosen(teacher: str, values: dict[str, Any], settings: list[str]) -> "TeacherSettings":
    from dllm2rec.settings.explain import alternatives, tags
    from dllm2rec.settings.parsing import override, validate
    from dllm2rec.settings.teacher import ReferenceTeacher, TeacherSettings

    kinds = {tag: one for one in alternatives(TeacherSettings) for tag in tags(one)}
    if teacher in kinds:
        chosen: TeacherSettings = validate(kinds[teacher], override({"kind": teacher, **values}, settings))
        return chosen
    reference = {"kind": "reference", "reference": {"kind": teacher}}
    return validate(ReferenceTeacher, override({**reference, **values}, settings))


def _with_budget(dataset: "Dataset", teacher: "TeacherSettings", budget: str, others: list[str]) -> "TeacherSettings":
    """Set the limit that ``--budget`` says, unless ``others`` set it, too."""
    from dllm2rec.workflow.budget import Limited, with_budget

    twice = next((text for text in others if text.partition("=")[0].strip() in ("train", "limits.train")), None)
    if twice is not None:
        raise UserError(
            f"--budget {budget} and {twice}: both say how many training examples to label; give one of them"
        )
    if not isinstance(teacher, Limited):
        raise UserError(f"--budget {budget}: teacher {teacher.kind} labels no examples of its own; leave it out")
    return with_budget(dataset, teacher, budget)


def _limits(
    dataset: "Dataset", teacher: "TeacherSettings", splits: list[str], limits: list[str]
) -> dict[str, int | None]:
    """Turn ``--split`` and ``--limit`` into a limit for each split; None is all of it."""
    from dllm2rec.workflow.budget import Limited, available

    if not isinstance(teacher, Limited):
        raise UserError(f"--split and --limit are not for teacher {teacher.kind}: {NO_LIMITS[teacher.kind]}")
    unknown = [split for split in splits if split not in SPLITS]
    if unknown:
        raise UserError(f"--split {unknown[0]}: no such split{suggest(unknown[0], SPLITS)}")
    chosen: dict[str, int | None] = {split: None if split in splits else 0 for split in SPLITS}
    for text in sorted(limits, key=lambda text: "=" in text):  # what one split is given counts more than all are
        name, equals, number = text.rpartition("=")
        if not number.isdecimal() or (equals and name not in SPLITS):
            raise UserError(f"--limit {text}: write a number, or train=, validation= or test= and a number")
        if equals:
            chosen[name] = int(number)
        else:
            there = available(dataset, teacher)
            chosen |= {split: min(int(number), there[split]) for split in SPLITS if split in splits}
    return chosen


def _counts(dataset: "Dataset", knowledge: "Knowledge") -> "dict[Split, int]":
    from dllm2rec.knowledge.align import align

    examples = {split: dataset.examples(split) for split in SPLITS}
    examples["train"] = dataset.training_examples("before-cut")
    return {split: int((align(knowledge, dataset, examples[split]) >= 0).sum()) for split in SPLITS}
