"""What every method that DLLM2Rec is compared with must do, whatever its formula."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator, torch_generator
from dllm2rec.data import Examples
from dllm2rec.data.batches import Batch
from dllm2rec.distillation.base import Distiller
from dllm2rec.distillation.cd import CDSettings
from dllm2rec.distillation.dcd import DCDSettings
from dllm2rec.distillation.hint import HintSettings
from dllm2rec.distillation.htd import HTDSettings, topology_loss
from dllm2rec.distillation.methods import (
    BaselineSettings,
    MethodSettings,
    VectorsMethod,
    build_method,
    depth_needed,
    require_needs,
)
from dllm2rec.distillation.ranking import RankingDistiller
from dllm2rec.distillation.rd import RDSettings, dynamic_weights, estimate_ranks
from dllm2rec.distillation.rrd import RRDSettings
from dllm2rec.distillation.settings import DLLM2RecSettings
from dllm2rec.distillation.soft_labels import SoftLabelDistiller, SoftLabelSettings
from dllm2rec.distillation.unkd import UnKDSettings, popularity_groups
from dllm2rec.knowledge.store import Knowledge, KnowledgeManifest, Labels
from dllm2rec.losses.bce import BCELoss, BCESettings
from dllm2rec.losses.dros import DROSSettings
from dllm2rec.losses.factory import LossSettings, build_loss
from dllm2rec.losses.softmax import SoftmaxSettings
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.gru4rec import GRU4RecSettings
from dllm2rec.training import FitSettings, checkpoint, fit
from dllm2rec.training.runlog import read_log

V, N, L, DEPTH, DIM = 40, 60, 4, 15, 8
METHODS: dict[str, BaselineSettings] = {
    "hint": HintSettings(lambda_d=0.1),
    "htd": HTDSettings(lambda_d=0.1, groups=4, anneal_epochs=3, items_per_step=16),
    "rd": RDSettings(lambda_d=0.5, top_k=5, warm_up=1, samples=10),
    "cd": CDSettings(lambda_d=0.5, depth=DEPTH, samples=6),
    "rrd": RRDSettings(lambda_d=0.1, depth=DEPTH, interesting=5, uninteresting=6),
    "dcd": DCDSettings(lambda_d=0.1, depth=DEPTH, samples=5),
    "unkd": UnKDSettings(lambda_d=0.5, depth=DEPTH, pairs=4),
}
DRAWN = {"rd": "sampled", "cd": "chosen", "rrd": "interesting", "dcd": "under", "unkd": "pairs"}


def test_every_method_is_among_them() -> None:
    assert {type(settings) for settings in METHODS.values()} == set(get_args(BaselineSettings))


all_methods = pytest.mark.parametrize("name", METHODS)
list_methods = pytest.mark.parametrize("name", DRAWN)


def examples(count: int, name: str) -> Examples:
    rng = numpy_generator(0, name)
    return Examples(
        example_id=np.arange(count, dtype=np.int64),
        user=np.arange(count, dtype=np.int32),
        history=rng.integers(0, V + 1, (count, L)).astype(np.int32),
        target=rng.integers(0, V, count).astype(np.int32),
        time=np.arange(count, dtype=np.int64),
        num_items=V,
    )


TRAIN = examples(N, "train")
ROWS = np.where(np.arange(N) % 3 == 0, -1, np.arange(N))


def knowledge(*, depth: int = DEPTH, vectors: bool = True) -> Knowledge:
    rng = numpy_generator(0, "knowledge")
    labels = Labels(
        example_id=np.arange(N),
        ranked_items=np.stack([rng.permutation(V)[:depth] for _ in range(N)]).astype(np.int32),
        distances=np.sort(rng.normal(50, 10, (N, depth)), axis=1).astype(np.float32),
        target_distance=rng.normal(50, 10, N).astype(np.float32),
        generated_text=[""] * N,
    )
    manifest = KnowledgeManifest(
        dataset_hash="x",
        num_items=V,
        teacher="bigrec",
        depth=depth,
        vector_size=12 if vectors else None,
    )
    item_vectors = rng.normal(size=(V, 12)).astype(np.float32) if vectors else None
    return Knowledge(path=Path("k"), manifest=manifest, labels=labels, item_vectors=item_vectors)


def build(
    settings: MethodSettings,
    *,
    known: Knowledge | None = None,
    rows: np.ndarray = ROWS,
    loss: LossSettings = BCESettings(),  # noqa: B008 - frozen
) -> list[Distiller]:
    return build_method(
        settings,
        knowledge=known or knowledge(),
        rows=rows,
        training=TRAIN,
        loss=build_loss(loss, popularity=torch.arange(V)),
        popularity=torch.arange(V),
        dim=DIM,
        generator=torch_generator(0, "method"),
    )


def student() -> Student:
    settings = GRU4RecSettings(dim=DIM, dropout=0.2)
    generator = torch_generator(0, "init")
    return build_student(settings, num_items=V, history=L, item_vectors=None, generator=generator)


def trained(run: Path, distillers: list[Distiller], *, epochs: int = 3) -> dict[str, Tensor]:
    model = student()
    fit(
        student=model,
        loss=BCELoss(negatives=1, reduction="sum"),
        distillers=distillers,
        train=TRAIN,
        validation=examples(20, "validation"),
        settings=FitSettings(epochs=epochs, batch_size=16, learning_rate=0.01, weight_decay=1e-4, patience=9),
        run=run,
        seed=1,
    )
    return dict(model.state_dict())


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return trained(tmp_path_factory.mktemp("plain"), [])


@all_methods
def test_weight_zero_is_the_plain_run_bit_for_bit(name: str, plain: dict[str, Tensor], tmp_path: Path) -> None:
    settings = METHODS[name]
    assert build(settings.model_copy(update={"lambda_d": 0.0})) == []
    (found,) = build(settings)
    found.weight = 0.0  # type: ignore[attr-defined]  # even where the term is there
    assert same(trained(tmp_path / "zero", [found]), plain)
    assert not same(trained(tmp_path / "taught", build(settings)), plain)


@all_methods
def test_a_resumed_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", build(METHODS[name]), epochs=4)
    trained(tmp_path / "parts", build(METHODS[name]), epochs=2)
    assert same(trained(tmp_path / "parts", build(METHODS[name]), epochs=4), whole)
    states = [load_file(tmp_path / run / "checkpoint" / "latest.safetensors") for run in ("whole", "parts")]
    assert same(*states)


@all_methods
def test_a_run_that_is_killed_within_an_epoch_ends_with_the_same_weights(
    name: str, tmp_path: Path, die_after: Callable[..., None]
) -> None:
    whole = trained(tmp_path / "whole", build(METHODS[name]))
    assert not (tmp_path / "whole" / checkpoint.HALFWAY).exists()
    deaths = (2, 4, 11)
    die_after(*deaths)
    for _ in deaths:  # within the first epoch, there once more, and in a later one
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "killed", build(METHODS[name]))
    assert (tmp_path / "killed" / checkpoint.HALFWAY).exists()
    assert same(trained(tmp_path / "killed", build(METHODS[name])), whole)
    assert not (tmp_path / "killed" / checkpoint.HALFWAY).exists()
    histories = [[line["loss"] for line in read_log(tmp_path / run)] for run in ("whole", "killed")]
    assert histories[0] == histories[1]


def test_own_weights_are_trained_and_stay_out_of_the_student(tmp_path: Path) -> None:
    (found,) = build(METHODS["hint"])
    assert isinstance(found, nn.Module)
    before = {key: value.clone() for key, value in found.state_dict().items()}
    weights = trained(tmp_path, [found])
    assert weights.keys() == student().state_dict().keys()
    assert "vectors" not in before
    assert all(not torch.equal(before[key], value) for key, value in found.state_dict().items())


@list_methods
def test_each_epoch_draws_anew_and_only_from_its_arguments(name: str) -> None:
    (first,), (second,) = build(METHODS[name]), build(METHODS[name])

    def drawn(found: Distiller, seed: int) -> Tensor:
        found.epoch(student().eval(), 5, torch_generator(seed, "epoch"))
        value = getattr(found, DRAWN[name])
        assert isinstance(value, Tensor)
        return value.clone()

    one, other = drawn(first, 1), drawn(first, 2)
    assert not torch.equal(one, other)
    assert torch.equal(drawn(second, 2), other)


def value(found: Distiller, model: Student, rows: list[int]) -> Tensor:
    row = torch.tensor(rows)
    batch = Batch(
        history=torch.from_numpy(TRAIN.history[rows]).long(),
        target=torch.from_numpy(TRAIN.target[rows]).long(),
        row=row,
    )
    found.epoch(model.eval(), 5, torch_generator(0, "epoch"))
    return found(model, model.encode(batch.history), batch, torch_generator(0, "step"))


@list_methods
def test_examples_without_a_label_add_nothing(name: str) -> None:
    (found,) = build(METHODS[name])
    model = student()
    assert value(found, model, [0, 3, 9]).item() == 0.0
    alone, beside = value(found, model, [1, 4]), value(found, model, [1, 0, 3, 4])
    torch.testing.assert_close(beside, alone / 2)


@all_methods
def test_the_term_is_finite_proportional_to_its_weight_and_has_a_gradient(name: str) -> None:
    values = []
    for factor in (1.0, 3.0):
        settings = METHODS[name].model_copy(update={"lambda_d": factor * METHODS[name].lambda_d})
        model = student()
        found = value(build(settings)[0], model, [1, 2, 4, 5])
        found.backward()
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert any((gradient != 0).any() for gradient in gradients)
        values.append(found.item())
    assert values[1] == pytest.approx(3 * values[0], rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "defaults"),
    [
        (RDSettings(), {"lambda_d": 1, "decay": 1, "steepness": 0.1, "top_k": 10, "warm_up": 10, "samples": 100}),
        (CDSettings(), {"softness": 2, "shift": 0, "temperature": 20, "guided": "student"}),
        (RRDSettings(), {"lambda_d": 1e-3, "interesting": 40, "uninteresting": 40, "temperature": 10, "depth": 500}),
        (DCDSettings(), {"lambda_d": 0.01, "samples": 100, "depth": 500, "temperature": 10}),
        (UnKDSettings(), {"pairs": 30, "groups": 2, "temperature": 20}),
        (HTDSettings(), {"lambda_d": 1e-3, "balance": 0.5, "groups": 30, "temperature_start": 1}),
    ],
    ids=lambda value: value.kind if isinstance(value, BaseModel) else "",
)
def test_the_originals_numbers_are_the_defaults(settings: BaseModel, defaults: dict[str, Any]) -> None:
    assert settings.model_dump() | defaults == settings.model_dump()


@all_methods
def test_wrong_settings_are_refused(name: str) -> None:
    for wrong in ({"lambda_d": -1}, {"lamda": 1}):
        with pytest.raises(ValidationError):
            type(METHODS[name])(**wrong)


@pytest.mark.parametrize("wrong", [{"depth": 30}, {"depth": 30, "interesting": 31}])
def test_more_drawn_than_there_is_depth(wrong: dict[str, int]) -> None:
    for settings in (RRDSettings, DCDSettings):
        with pytest.raises(ValidationError, match="more than the depth of 30"):
            settings(**{key: number for key, number in wrong.items() if key in settings.model_fields})


@pytest.mark.parametrize("settings", [DLLM2RecSettings(), *(METHODS[name] for name in DRAWN)], ids=lambda one: one.kind)
def test_lists_that_are_too_short_say_what_to_teach(settings: Any) -> None:
    needed = depth_needed(settings)
    short = knowledge(depth=needed.items - 1)
    words = rf"k: lists {needed.items - 1} items .* reads {needed.items} .*teach --set depth={needed.items}`"
    with pytest.raises(UserError, match=words + rf", or set method\.{needed.setting}={needed.items - 1} or less"):
        require_needs(settings, short)
    require_needs(settings, knowledge(depth=needed.items))


@list_methods
def test_no_lists_at_all(name: str) -> None:
    with pytest.raises(UserError, match=r"lists 0 items .* `dllm2rec teach --set depth=\d+`$"):
        require_needs(METHODS[name], knowledge(depth=0))


def test_soft_labels_take_lists_of_any_depth_but_none() -> None:
    settings = SoftLabelSettings(top_k=4)
    for depth, kept in ((1, 1), (9, 4)):
        (found,) = build(settings, known=knowledge(depth=depth), loss=SoftmaxSettings())
        assert isinstance(found, SoftLabelDistiller)
        assert found.shares.shape[1] == kept
    with pytest.raises(UserError, match=r"lists 0 items .*, or take method vectors"):
        require_needs(settings, knowledge(depth=0))


def test_soft_labels_share_out_a_softmax() -> None:
    with pytest.raises(UserError, match=r"set loss\.kind=softmax"):
        build(SoftLabelSettings())


def test_dllm2rec_distils_rankings_cut_to_top_k_where_there_are_some() -> None:
    (found,) = build(DLLM2RecSettings(top_k=4))
    assert isinstance(found, RankingDistiller)
    assert found.lessons.ranked_items.shape == ((ROWS >= 0).sum(), 4)
    assert build(DLLM2RecSettings(), known=knowledge(depth=0), rows=np.full(N, -1)) == []
    assert build(DLLM2RecSettings(lambda_d=0), rows=np.full(N, -1)) == []


@pytest.mark.parametrize("name", ["hint", "htd"])
def test_dllm2rec_may_distil_item_vectors_by_another_method(name: Any) -> None:
    ranking, vectors = build(DLLM2RecSettings(embedding=name))
    assert isinstance(ranking, RankingDistiller)
    assert type(vectors) is type(build(METHODS[name])[0])


def test_candidates_get_the_robust_term_only_with_dros_and_where_the_variant_says_so() -> None:
    def robust(loss: LossSettings, **method: Any) -> bool:
        (found,) = build(DLLM2RecSettings(**method), loss=loss)
        assert isinstance(found, RankingDistiller)
        return found.robust is not None

    assert robust(DROSSettings(), variant="released")
    assert not robust(DROSSettings(), variant="paper")
    assert not robust(BCESettings(), variant="released")
    assert not robust(DROSSettings(alpha=0.0), variant="released")
    assert not robust(DROSSettings(), variant="released", dros_on_candidates=False)


@pytest.mark.parametrize("name", ["hint", "htd"])
def test_missing_vectors_say_who_gives_some(name: str) -> None:
    with pytest.raises(UserError, match=rf"no item vectors, which method {name} needs; .*teach --teacher blend"):
        build(METHODS[name], known=knowledge(vectors=False))
    assert build(METHODS[name], known=knowledge(depth=0), rows=np.full(N, -1))


@pytest.mark.parametrize(
    ("settings", "instead"),
    [(SoftLabelSettings(), "take method vectors"), (DLLM2RecSettings(), r"set method\.lambda_d=0 to distil")],
    ids=lambda value: value.kind if isinstance(value, BaseModel) else "",
)
def test_item_vectors_alone_are_a_way_out(settings: MethodSettings, instead: str) -> None:
    with pytest.raises(UserError, match=f"labels no training example.*, or {instead}"):
        build(settings, rows=np.full(N, -1))
    with pytest.raises(UserError, match=rf"{settings.kind} needs; set method\.embedding=false or teach some"):
        require_needs(settings, knowledge(vectors=False))
    with pytest.raises(UserError, match="vectors needs; teach some"):
        require_needs(VectorsMethod(), knowledge(vectors=False))
    require_needs(settings.model_copy(update={"embedding": False}), knowledge(vectors=False, depth=10))


@list_methods
def test_no_labelled_training_example(name: str) -> None:
    with pytest.raises(UserError, match=f"labels no training example, and method {name} .*--split train`$"):
        build(METHODS[name], rows=np.full(N, -1))


def test_ranks_are_estimated_from_a_sample_by_hand() -> None:
    others = torch.tensor([[5.0, 1.0, 3.0, 1.0]])
    found = estimate_ranks(torch.tensor([[9.0, 3.0, 2.0, 0.0]]), others, num_items=102)
    assert found.tolist() == [[1, 26, 51, 102]]  # 0, 1, 2 and 4 of 4 above: floor(n 101 / 4) + 1
    weights = dynamic_weights(found, steepness=0.1)
    expected = [0.0, np.tanh(2.4), np.tanh(4.8), np.tanh(9.8)]
    assert weights[0].tolist() == pytest.approx(expected, rel=1e-6)


def test_groups_share_the_interactions() -> None:
    popularity = torch.tensor([1, 6, 1, 1, 3, 0])
    assert popularity_groups(popularity, count=2).tolist() == [1, 0, 1, 1, 1, 1]
    assert popularity_groups(torch.zeros(3), count=2).tolist() == [0, 0, 0]


def test_no_gradient_passes_through_the_mean_of_a_group() -> None:
    generator = torch_generator(0, "topology")
    embedded = torch.randn(4, 3, dtype=torch.float64, generator=generator).requires_grad_()
    vectors = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    alone = torch.arange(4)  # an item that is its own group: pairs and means say nothing about it but the others' means
    topology_loss(embedded, vectors, alone, groups=6).backward()
    means = nn.functional.normalize(embedded.detach(), dim=1)
    teacher = nn.functional.normalize(vectors, dim=1)
    leaf = embedded.detach().clone().requires_grad_()
    ours = nn.functional.normalize(leaf, dim=1)
    (teacher @ teacher.T - ours @ means.T).square().sum().backward()
    torch.testing.assert_close(embedded.grad, leaf.grad)
