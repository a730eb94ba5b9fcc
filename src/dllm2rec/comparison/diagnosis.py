"""The doctor's numbers become sentences."""

import math
from collections.abc import Iterator, Sequence

from dllm2rec.comparison.examination import Calibration, Examination, Finding, Rival, Texts, Vectors, Weights
from dllm2rec.core.figures import duration, figure, listing, p_text
from dllm2rec.data import Split
from dllm2rec.evaluation.metrics import HITS, METRIC, TOP
from dllm2rec.evaluation.significance import SIGNIFICANT
from dllm2rec.teachers.merging import Mixture

FEW = 500
SEEN_BEFORE = 3
"""How many times as often as on validation a teacher may be right on what it labels for training."""


def diagnose(page: Examination) -> tuple[Finding, ...]:
    """Say in plain words what the numbers mean for someone who is about to train on this teacher."""
    return (
        *(Finding(level="note", text=text) for text in describe_mixture(page.mixture)),
        *(Finding(level="note", text=text) for text in describe_blend(page.text_weight)),
        *_coverage(page),
        *(finding for rival in page.rivals for finding in _rival(rival)),
        *_missing_rivals(page),
        *_seen(page),
        *_weights(page.weights),
        *_calibration(page.calibration),
        *_texts(page.texts),
        *_titles(page),
        *_vectors(page.vectors),
        *_cost(page),
    )


def headline(page: Examination) -> str:
    """Answer whether the teacher is worth training on, from validation where it is labelled there."""
    split: Split = "validation" if any(rival.split == "validation" for rival in page.rivals) else "test"
    rivals = [rival for rival in page.rivals if rival.split == split]
    if page.teacher == "texts":
        return "This teacher explains in texts and gives no rankings: methods kar and llm-cf read what it wrote."
    if page.depth == 0:
        return "This teacher gives item vectors and no rankings: only embedding distillation can use it."
    if not rivals:
        return "Unknown: no validation example is labelled, so the teacher can't be compared with anything."
    fitted = split == "validation" and (page.mixture is not None or page.text_weight is not None)
    standing = _standing(rivals, f"on {split}{', which chose its weights,' if fitted else ''}")
    if page.vectors is None or standing.startswith("Promising"):
        return standing
    return f"{standing} That is about its rankings; its item vectors may help all the same."


def _standing(rivals: Sequence[Rival], where: str) -> str:
    same = [rival.name for rival in rivals if not rival.differing]
    rivals = [rival for rival in rivals if rival.differing]
    if not rivals:
        return f"Not shown: {where} no target tells the teacher from {listing(same)}."
    shown = [rival for rival in rivals if rival.p_value < SIGNIFICANT]
    beaten = [rival.name for rival in shown if rival.teacher[METRIC] > rival.rival[METRIC]]
    others = [rival.name for rival in rivals if rival.name not in beaten]
    if not others:
        return f"Promising: {where} the teacher is better than {listing(beaten)}."
    if beaten:
        return f"Doubtful: {where} the teacher beats {listing(beaten)}, but not {listing(others)}, beyond chance."
    if not shown:
        return (
            f"Not shown: {where} the teacher is neither better nor worse than {listing(others)} beyond chance; more "
            f"labels than {rivals[0].examples:,} may tell."
        )
    return f"Weak: {where} the teacher is no better than {listing(others)}; expect little from its rankings."


def describe_mixture(mixture: Mixture | None) -> Iterator[str]:
    """Say what was merged, a line a source, and how far its confidence is from the truth; nothing of one teacher."""
    if mixture is None:
        return
    for source in mixture.sources:
        if source.temperature is None:
            yield f"Merged: {source.name}, its item vectors alone."
        else:
            yield f"Merged: {source.name} with weight {figure(source.weight)}, at temperature {source.temperature:.4g}."
    depths = [source.depth for source in mixture.sources if source.depth]
    if depths and mixture.depth == min(depths) < max(depths):
        short = dict.fromkeys(source.name for source in mixture.sources if source.depth == mixture.depth)
        yield (
            f"Lists are cut to {mixture.depth} items, the depth of {listing(list(short))}; students that read more "
            "need deeper ones."
        )
    yield (
        f"The best item's probability is off by {figure(mixture.calibration_error)} (expected calibration error) on "
        f"{mixture.validation_examples:,} validation examples; weights and temperatures were found on the same."
    )


def describe_blend(text_weight: float | None) -> Iterator[str]:
    """Say how far a blend reads text, and what it means that it does not; nothing of another teacher."""
    if text_weight is None:
        return
    if text_weight > 0:
        yield (
            f"Text has weight {text_weight:g} beside item-kNN: unless it was set, the best on validation, where "
            "rankings left out the items of histories if users rarely repeat one. Beside baselines the rankings here "
            "leave none out, which costs text more than item-kNN."
        )
    else:
        yield (
            "Text has weight 0, so these labels are item-kNN's alone. Unless the weight was set, validation chose it: "
            "titles told nothing more than counting."
        )


def _coverage(page: Examination) -> Iterator[Finding]:
    if page.depth == 0:
        return
    parts = [
        f"{found.labelled:,} of {found.examples:,} {split} examples ({found.labelled / max(found.examples, 1):.0%})"
        for split, found in page.coverage.items()
    ]
    useless = page.coverage["train"].labelled == 0
    yield Finding(level="bad" if useless else "note", text=f"It labelled {listing(parts)}.")
    if page.depth < TOP:
        yield Finding(level="note", text=f"It lists {page.depth} items an example: its HR@20 counts those alone.")


def _rival(rival: Rival) -> Iterator[Finding]:
    own, theirs = rival.teacher, rival.rival
    if not rival.differing:
        yield Finding(
            level="note",
            text=f"On {rival.examples:,} {rival.split} examples no target tells it from {rival.name}: HR@20 "
            f"{figure(own[HITS])} and NDCG@20 {figure(own[METRIC])}, and their lists share {rival.overlap:.1%}. The "
            "two are not tested.",
        )
        return
    caution = f" Few examples ({rival.examples}): take it as a hint." if rival.examples < FEW else ""
    yield Finding(
        level="note" if rival.p_value >= SIGNIFICANT else "good" if own[METRIC] > theirs[METRIC] else "bad",
        text=(
            f"On {rival.examples:,} {rival.split} examples it reaches{_without(rival)} HR@20 {figure(own[HITS])} and "
            f"NDCG@20 {figure(own[METRIC])}; {rival.name} {figure(theirs[HITS])} and "
            f"{figure(theirs[METRIC])} ({p_text(rival.p_value)}).{caution}"
        ),
    )
    yield Finding(
        level="note",
        text=(
            f"Where it differs from {rival.name} ({rival.differing:,} examples) the teacher is better in "
            f"{rival.teacher_wins:.0%}; their lists share {rival.overlap:.1%}; an item in both is the target in "
            f"{rival.hits_both:.2%} of the cases, an item in one in {rival.hits_one:.2%}."
        ),
    )


def _without(rival: Rival) -> str:
    what = {"history": "the items of histories", "ever": "what users chose before"}
    return f", without {what[rival.left_out]}, as the student ranks," if rival.left_out in what else ""


def _missing_rivals(page: Examination) -> Iterator[Finding]:
    if page.student is None and page.depth:
        yield Finding(
            level="note",
            text="No plain student was given (--student-run RUN), and none was trained for this page: "
            "the comparison with what it would teach is missing.",
        )


def _seen(page: Examination) -> Iterator[Finding]:
    """Say where a teacher knows the answers of the examples that it labels."""
    own, other = page.hits["train"], page.hits["validation"]
    if not (own.examples and other.examples):
        return
    spread = math.sqrt(other.share * (1 - other.share) / other.examples)
    most = other.share + 2 * spread + 2 / other.examples  # that validation could be by chance
    if own.share > SEEN_BEFORE * most:
        yield Finding(
            level="bad",
            text=(
                f"Of targets that training has, the first {TOP} of its lists hold {own.share:.1%} in the training "
                f"examples that it labelled, and {other.share:.1%} in those of validation: it has learned from what it "
                "labels, so students will trust it too far. Let it label users that it was not fitted to."
            ),
        )


def _weights(weights: Weights | None) -> Iterator[Finding]:
    if weights is None:
        return
    spread = (
        f"Confidence of {weights.sequences:,} labelled training sequences: the weights vary by {weights.variation:.0%} "
        f"of their mean, the most trusted tenth carries {weights.top_tenth:.0%} of the weight, and "
        f"{weights.effective:.0%} of the sequences count. Distances to the true item: {weights.distance_low:.4g} to "
        f"{weights.distance_high:.4g}, median {weights.distance_median:.4g}."
    )
    if weights.variation < 0.05:
        yield Finding(level="bad", text=f"{spread} All weights are nearly equal: confidence says nothing here.")
    elif weights.effective < 0.1:
        yield Finding(level="bad", text=f"{spread} Nearly all weight lies on a few sequences.")
    else:
        yield Finding(level="good", text=spread)


def _calibration(found: Calibration | None) -> Iterator[Finding]:
    if found is None:
        return
    whose = "By its own probabilities"
    if found.temperature is not None:
        whose = f"With its distances as probabilities, at the temperature of validation ({found.temperature:.4g}),"
    yield Finding(
        level="note",
        text=(
            f"{whose} it is {found.confidence:.2%} sure of its best item on {found.examples:,} test examples, and "
            f"right in {found.right:.2%}; the expected calibration error is {figure(found.error)}."
        ),
    )


def _texts(texts: Texts | None) -> Iterator[Finding]:
    if texts is None:
        return
    yield Finding(
        level="good" if texts.titles > 0.5 else "note",
        text=(
            f"Of {texts.texts:,} generated texts {texts.titles:.0%} equal a title of the catalogue, "
            f"{texts.distinct:.0%} differ from all before them, {texts.empty:.0%} are empty, "
            f"{texts.unfinished:.0%} came to no end."
        ),
    )
    if texts.commonest_share > 0.1:
        share = f"{texts.commonest_share:.0%}"
        text = f"It writes '{texts.commonest[:80]}' in {share} of the cases: it hardly reads the history."
        yield Finding(level="bad", text=text)


def _titles(page: Examination) -> Iterator[Finding]:
    if page.repeated_titles:
        count = f"{page.repeated_titles:,} of {page.num_items:,}"
        yield Finding(level="note", text=f"{count} items repeat the title of another: no text tells them apart.")


def _vectors(vectors: Vectors | None) -> Iterator[Finding]:
    if vectors is None:
        yield Finding(level="note", text="There are no item vectors: embedding distillation is not possible.")
        return
    bad = vectors.zero > 0 or vectors.repeated > vectors.items / 2 or vectors.constant_columns == vectors.size
    yield Finding(
        level="bad" if bad else "good",
        text=(
            f"Item vectors: {vectors.items:,} of size {vectors.size}, all finite; {vectors.repeated:,} repeat another, "
            f"{vectors.zero:,} are zero, {vectors.constant_columns:,} columns are constant."
        ),
    )


def _cost(page: Examination) -> Iterator[Finding]:
    if page.seconds_per_1000 is not None:
        what = (
            "Writing took {} s for 1,000 texts" if page.teacher == "texts" else "Labelling took {} s for 1,000 examples"
        )
        text = f"{what.format(duration(page.seconds_per_1000))} where it was done."
        yield Finding(level="note", text=text)
