"""What the doctor measured."""

from typing import Literal

from dllm2rec.core.settings import Settings
from dllm2rec.data import Split
from dllm2rec.evaluation.references import Follows
from dllm2rec.teachers.merging import Mixture


class Coverage(Settings):
    """How many examples of a split have a label."""

    labelled: int
    examples: int


class Hits(Settings):
    """Labelled examples whose target training has: how many, and the share in which it is among the first twenty."""

    examples: int
    share: float


class Rival(Settings):
    """The teacher against something else on the same labelled examples.

    Attributes:
        name: of the rival.
        split: of the examples.
        left_out: what the rival leaves out of its rankings, and the teacher's lists beside it do, too.
        examples: how many were compared.
        teacher: its HR@20 and NDCG@20.
        rival: the rival's.
        p_value: of the difference in NDCG@20, see `paired_permutation_test`, after Holm over the rivals of the
            split that differ from the teacher at all; of what was trained for these weights.
        teacher_wins: share of the examples that differ in NDCG@20 in which the teacher is better.
        differing: how many examples differ.
        overlap: mean share of the two lists of 20 that is the same.
        hits_both: share of hits among items in both lists.
        hits_one: share of hits among items in one.
    """

    name: str
    split: Split
    left_out: Follows = "nothing"
    examples: int
    teacher: dict[str, float]
    rival: dict[str, float]
    p_value: float
    teacher_wins: float
    differing: int
    overlap: float
    hits_both: float
    hits_one: float


class Weights(Settings):
    """Confidence weights of the labelled training sequences, and the distances they come from.

    Attributes:
        sequences: how many.
        distance_low: 5% of the distances from the text to the true next item lie below.
        distance_median: half of them.
        distance_high: 95%.
        variation: standard deviation of the weights over their mean; 0 where all are equal.
        effective: sequences that count, as a share (Kish); 1 where all weights are equal.
        top_tenth: share of the weight that lies on the most trusted tenth.
    """

    sequences: int
    distance_low: float
    distance_median: float
    distance_high: float
    variation: float
    effective: float
    top_tenth: float


class Calibration(Settings):
    """How sure the teacher is of test examples, and how often it is right.

    Attributes:
        temperature: under which its distances are probabilities, found on validation, see `likeliest_temperature`; None
            where they are as they stand.
        examples: of test, that are labelled.
        confidence: mean probability of its best item.
        right: share of the examples whose target that is.
        error: expected calibration error of the best item, see `calibration_error`.
        bins: mean probability and share of hits of all that it lists, see `reliability`.
    """

    temperature: float | None
    examples: int
    confidence: float
    right: float
    error: float
    bins: tuple[tuple[float, float], ...]


class Texts(Settings):
    """What the teacher wrote, as shares of all texts.

    Attributes:
        texts: how many.
        titles: equal to a title of the catalogue, without regard to case.
        distinct: different from each other.
        empty: of nothing.
        unfinished: that came to no end within the limit of tokens.
        commonest: the text that occurs most often.
        commonest_share: how often.
    """

    texts: int
    titles: float
    distinct: float
    empty: float
    unfinished: float
    commonest: str
    commonest_share: float


class Vectors(Settings):
    """Item vectors.

    Attributes:
        items: V.
        size: Dt.
        constant_columns: columns in which all items are the same.
        repeated: items whose vector an item before them has, too.
        zero: items with the zero vector.
    """

    items: int
    size: int
    constant_columns: int
    repeated: int
    zero: int


class Finding(Settings):
    """One sentence. `level`: good, something to know, or something that speaks against training on this teacher."""

    level: Literal["good", "note", "bad"]
    text: str


class Examination(Settings):
    """The doctor's page.

    Attributes:
        dataset: its name.
        teacher: its kind.
        model: its model.
        depth: items that a label lists.
        coverage: of each split.
        hits: of the teacher on training and on validation.
        rivals: on validation, and on test where that was asked for, where examples are labelled.
        weights: None without labelled training examples.
        calibration: None where test was not asked for, or too few examples of validation or test are labelled.
        texts: None for a teacher that writes none.
        vectors: None where there are none.
        repeated_titles: items whose title an earlier item has too.
        num_items: V.
        seconds_per_1000: labelling time of 1,000 examples.
        student: the plain student that was compared, if any.
        mixture: what was merged, where several teachers were.
        text_weight: of text beside item-kNN, where the teacher is a blend.
        findings: in plain words.
    """

    dataset: str
    teacher: str
    model: str
    depth: int
    coverage: dict[Split, Coverage]
    hits: dict[Split, Hits]
    rivals: tuple[Rival, ...]
    weights: Weights | None
    calibration: Calibration | None
    texts: Texts | None
    vectors: Vectors | None
    repeated_titles: int
    num_items: int
    seconds_per_1000: float | None
    student: str | None
    mixture: Mixture | None
    text_weight: float | None
    findings: tuple[Finding, ...]

    @property
    def name(self) -> str:
        """The teacher and its model, for people."""
        return f"{self.teacher} ({self.model})" if self.model else self.teacher
