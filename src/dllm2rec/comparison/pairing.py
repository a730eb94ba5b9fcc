"""Which rows of a table are tested against which, and with what outcome."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dllm2rec.comparison.evidence import Evidence, Group, Taught, Values, metric_values
from dllm2rec.comparison.results import Versus
from dllm2rec.core.errors import UserError
from dllm2rec.core.figures import listing, p_text, percent
from dllm2rec.core.seeding import numpy_generator
from dllm2rec.distillation.methods import ListMethod, reads_item_vectors
from dllm2rec.evaluation.metrics import HITS, METRIC
from dllm2rec.evaluation.significance import holm, trained_test
from dllm2rec.teachers.merging import Mixture
from dllm2rec.workflow.training import adapted

OF_VECTORS = {
    "vector_scaling",
    "offset",
    "offset_dropout",
    "text_weight",
    "projector_hidden",
    "projector_std",
    "unseen_offset",
    "text_neighbours",
}
"""Settings of students that matter with item vectors alone."""


def pair_tests(evidence: Evidence, seed: int, against: str | None = None) -> dict[str, Versus]:
    """Test each group against its baseline; the p-values of each metric are adjusted together.

    Raises:
        UserError: no group is of the method ``against``.
    """
    methods = list(dict.fromkeys(group.method for group in evidence.groups))
    if against is not None and against not in methods:
        raise UserError(f"no run here is of the method {against!r} to test against; there are {listing(methods)}")
    pairs = [(group, baseline) for group in evidence.groups if (baseline := _baseline(group, evidence.groups, against))]
    found = [_between(group, baseline, evidence, _draws(seed, group.label)) for group, baseline in pairs]
    adjusted = holm([versus.p_value for versus in found])
    hits = holm([versus.hits_p_value for versus in found])
    return {
        group.label: versus.model_copy(
            update={
                "p_value": p_value,
                "hits_p_value": hits_p_value,
                "plain": baseline in plain_of(group, evidence.groups),
                "several_seeds": min(len(group.runs), len(baseline.runs)) > 1,
            }
        )
        for (group, baseline), versus, p_value, hits_p_value in zip(pairs, found, adjusted, hits, strict=True)
    }


def over_reference(evidence: Evidence, seed: int) -> Versus | None:
    """Test the student that validation prefers against the reference that it prefers, a test of its own."""
    best = evidence.best_reference
    if not evidence.groups or best is None:
        return None
    name, values = best[0], {metric: value[None] for metric, value in best[1].items()}
    own = max(evidence.groups, key=_by_validation)
    versus = _tested(name, own.values, values, evidence.examples.user, _draws(seed, name))
    return versus.model_copy(update={"several_seeds": len(own.runs) > 1})


def teacher_over(evidence: Evidence, taught: Taught, seed: int) -> Versus | None:
    """Test a teacher against the plain student that validation prefers, on the examples that it labelled.

    Its lists leave out what that student leaves out.
    """
    kept, best = taught.labelled, best_plain(evidence)
    if best is None:
        return None
    ranks = taught.ranks_without(best.left_out, evidence.examples)
    own = {metric: value[None] for metric, value in metric_values(ranks).items()}
    theirs = {metric: value[:, kept] for metric, value in best.values.items()}
    return _tested(best.label, own, theirs, evidence.examples.user[kept], _draws(seed, taught.name))


def best_plain(evidence: Evidence) -> Group | None:
    """Return the student without a teacher that validation prefers."""
    return max((group for group in evidence.groups if not group.distilled), key=_by_validation, default=None)


def beyond_vectors(evidence: Evidence, seed: int) -> list[str]:
    """Say what the labels of a teacher add to its item vectors, or how that can be known."""
    lines, alone = [], []
    for group in evidence.groups:
        method = group.runs[0].config.settings.method
        if not (isinstance(method, ListMethod) and reads_item_vectors(method) and plain_of(group, evidence.groups)):
            continue
        best = _nearest(group, [other for other in evidence.groups if _reads_as(group, other)])
        if best is None:
            alone.append(group.label)
            continue
        found = _between(group, best, evidence, _draws(seed, f"labels of {group.label}"))
        lines.append(
            f"What labels add to item vectors: {group.label} against {best.label}, which reads the same vectors and no "
            f"labels, {percent(found.gain)} ({p_text(found.p_value)}, not Holm-corrected){_also(group, best)}."
        )
    if alone:
        every = len(alone) > 1 and len(alone) == sum(group.distilled for group in evidence.groups)
        lines.append(
            f"{'Taught students' if every else listing(alone)} also read{'s' if len(alone) == 1 else ''} the teacher's "
            "item vectors, and plain students do not: a student of `train --method vectors` would show what labels add."
        )
    return lines


def beyond_parts(evidence: Evidence, seed: int) -> list[str]:
    """Say what merged teachers teach beyond some of them, or how that can be known."""
    lines, alone = [], []
    for group in evidence.groups:
        sources = _sources(group, evidence)
        if len(sources) < 2:
            continue
        best = _nearest(group, [other for other in evidence.groups if _taught_alike(group, other, evidence)])
        if best is None:
            alone.append((group.label, listing(list(sources.values()))))
            continue
        learned = _sources(best, evidence)
        more = listing([name for key, name in sources.items() if key not in learned])
        found = _between(group, best, evidence, _draws(seed, f"sources of {group.label}"))
        lines.append(
            f"What {more} adds to {listing(list(learned.values()))}: {group.label} against {best.label}, "
            f"{percent(found.gain)} ({p_text(found.p_value)}, not Holm-corrected){_also(group, best)}."
        )
    if alone:
        several, names = len(alone) > 1, dict.fromkeys(names for _, names in alone)
        lines.append(
            f"{listing([label for label, _ in alone])} learn{'' if several else 's'} from several teachers as one "
            f"({'; '.join(names)}): the same student, taught by one of them, would say what the others add."
        )
    return lines


def _sources(group: Group, evidence: Evidence) -> dict[str, str]:
    """Name the teachers of a group by the hashes of their knowledge: those that were merged, or the one that taught."""
    config = group.runs[0].config
    if config.knowledge is None or not isinstance(config.settings.method, ListMethod):
        return {}
    return _parts(config.knowledge.hash, config.knowledge.name, evidence.mixtures)


def _parts(knowledge: str, name: str, mixtures: Mapping[str, Mixture]) -> dict[str, str]:
    """Name what was merged to knowledge, by its hash, and to that in turn, as far as is known."""
    if knowledge not in mixtures:
        return {knowledge: name}
    found = (_parts(source.hash, source.name, mixtures) for source in mixtures[knowledge].sources)
    return {key: one for part in found for key, one in part.items()}


def _taught_alike(group: Group, other: Group, evidence: Evidence) -> bool:
    """Whether another group is a group's student, taught in its way by some of its teachers."""
    some, every = _sources(other, evidence).keys(), _sources(group, evidence).keys()
    ours, theirs = group.runs[0].config, other.runs[0].config
    alike = ours.settings.method.kind == theirs.settings.method.kind and ours.student == theirs.student
    return bool(some) and some < every and alike and _kind(group) == _kind(other)


def _nearest(group: Group, others: Sequence[Group]) -> Group | None:
    """Return the one whose settings differ least from a group's; of equals one of its name, that validation prefers."""

    def distance(other: Group) -> tuple[int, bool, float]:
        return len(differing_settings(group, other, taught=True)), other.student != group.student, -other.validation

    return min(others, key=distance, default=None)


def _also(group: Group, other: Group) -> str:
    found = differing_settings(group, other, taught=True)
    return f"; they also differ in {', '.join(found)}" if found else ""


def _reads_as(group: Group, other: Group) -> bool:
    """Whether another group has a group's kind of student, and of its knowledge the item vectors alone."""
    ours, theirs = group.runs[0].config, other.runs[0].config
    return (
        theirs.settings.method.kind == "vectors"
        and _kind(other) == _kind(group)
        and theirs.knowledge is not None
        and ours.knowledge is not None
        and theirs.knowledge.hash == ours.knowledge.hash
    )


def _by_validation(group: Group) -> float:
    return group.validation


def _between(group: Group, other: Group, evidence: Evidence, draws: np.random.Generator) -> Versus:
    return _tested(other.label, group.values, other.values, evidence.examples.user, draws)


def _tested(
    baseline: str,
    own: Mapping[str, Values],
    theirs: Mapping[str, Values],
    user: NDArray[np.int32],
    draws: np.random.Generator,
) -> Versus:
    """Test values `[seeds, N]` of both metrics against those of a baseline."""
    tested = {name: trained_test(own[name], theirs[name], user=user, generator=draws) for name in (METRIC, HITS)}
    before = {name: float(theirs[name].mean()) for name in tested}
    difference = {name: float(own[name].mean()) - before[name] for name in tested}
    gain = {name: difference[name] / before[name] if before[name] > 0 else None for name in tested}
    return Versus(
        baseline=baseline,
        difference=difference[METRIC],
        interval=tested[METRIC].interval,
        gain=gain[METRIC],
        p_value=tested[METRIC].p_value,
        hits_gain=gain[HITS],
        hits_p_value=tested[HITS].p_value,
    )


def _draws(seed: int, name: str) -> np.random.Generator:
    return numpy_generator(seed, "permutation", name)


def _baseline(group: Group, groups: Sequence[Group], against: str | None) -> Group | None:
    """For a taught group the plain one of the same student; where all groups are taught, or none is, the first.

    With ``against`` the one of this method, for every group of another.
    """
    if against is not None:
        of_method = [other for other in groups if other.method == against]
        return None if group.method == against else next(iter(_alike(group, of_method)), None)
    if plain := plain_of(group, groups):
        return plain[0]
    alike = len({other.distilled for other in groups}) == 1
    return groups[0] if alike and groups[0] is not group else None


def plain_of(group: Group, groups: Sequence[Group]) -> list[Group]:
    """Return those that differ from a taught group by having no teacher, whatever else was tuned.

    These have its name; where none has, they are of its kind. The first is the one that validation prefers.
    """
    return _alike(group, [other for other in groups if not other.distilled]) if group.distilled else []


def _alike(group: Group, others: Sequence[Group]) -> list[Group]:
    """Return those of a group's kind, of its name if any are; the one that validation prefers comes first."""
    found = [other for other in others if _kind(other) == _kind(group)]
    named = [other for other in found if other.student == group.student]
    return sorted(named or found, key=lambda one: (-one.validation, len(differing_settings(group, one))))


def differing_settings(group: Group, other: Group, *, taught: bool = False) -> list[str]:
    """Name what two groups differ in beside the teacher: training, student, loss.

    What matters with item vectors alone is left out, unless both are ``taught``; then a method that both have is
    looked at, too.
    """
    one, two = (adapted(some.runs[0].config.settings) for some in (group, other))
    method = ("method",) if taught and one.method.kind == two.method.kind else ()
    return [
        f"{part}.{name} ({ours}, {theirs})"
        for part in ("training", "student", "loss", *method)
        for name, ours in getattr(one, part)
        if (taught or name not in OF_VECTORS) and (theirs := getattr(getattr(two, part), name)) != ours
    ]


def _kind(group: Group) -> tuple[str, ...]:
    settings = group.runs[0].config.settings
    return settings.protocol, settings.train_on, settings.demand, settings.student.kind, settings.loss.kind
