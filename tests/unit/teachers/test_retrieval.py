"""The retrieval teacher: how histories are cut and read, what the heads learn, and labels that survive a kill."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator, torch_generator
from dllm2rec.data import Dataset, PaperSplit, read_log, write_dataset
from dllm2rec.data.examples import Sequences
from dllm2rec.knowledge.store import Knowledge, KnowledgeWriter
from dllm2rec.teachers import retrieval, retrieval_tuning
from dllm2rec.teachers.contrastive import (
    Drawn,
    Heads,
    HeadSettings,
    contrastive_loss,
    draw_items,
    first_heads,
    fit_heads,
    hard_negatives,
)
from dllm2rec.teachers.cost import note, noted
from dllm2rec.teachers.llm import load_llm
from dllm2rec.teachers.reading import Chunk, Lines, cut, item_states, read_sequences, states_of
from dllm2rec.teachers.retrieval import RetrievalSettings, labelled_in_training, teach_retrieval
from dllm2rec.teachers.retrieval_tuning import RetrievalTuningSettings

SETTINGS = RetrievalSettings(
    max_titles=4,
    title_tokens=8,
    depth=5,
    folds=3,
    shard_size=16,
    heads=HeadSettings(size=8, epochs=2, batch_size=16, negatives=4, hard=1),
    tuning=RetrievalTuningSettings(sequences=6, batch_size=2),
)
LIMITS = {"train": None, "validation": None, "test": 4}


def teach(dataset: Dataset, llm: Path, out: Path, limits: dict | None = None, **changes: object) -> Knowledge:
    settings = SETTINGS.model_copy(update=changes)
    return teach_retrieval(dataset, llm=str(llm), out=out, limits=limits or LIMITS, settings=settings, seed=3)


@pytest.fixture(scope="module")
def knowledge(tiny_dataset: Dataset, tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Knowledge:
    return teach(tiny_dataset, tiny_llm, tmp_path_factory.mktemp("teach") / "knowledge")


def assert_same_labels(one: Knowledge, other: Knowledge) -> None:
    for name in ("example_id", "ranked_items", "distances", "target_distance"):
        assert np.array_equal(getattr(one.labels, name), getattr(other.labels, name)), name
    assert np.array_equal(one.item_vectors, other.item_vectors)


# reading


def test_chunks_by_hand() -> None:
    sequences = Sequences(items=np.zeros(12, np.int32), times=np.arange(12), offsets=np.array([0, 9, 12]))
    chunks = cut(sequences, np.array([0, 2, 3, 4, 6, 8, 10]), max_titles=4)
    # four titles at once, then two more each time; the second user begins anew
    found = [(chunk.start, chunk.rows.tolist()) for chunk in chunks]
    assert found == [(0, [0, 2, 3]), (2, [4]), (4, [6]), (6, [8]), (9, [10])]


@pytest.mark.parametrize("max_titles", [2, 3, 4, 7, 50])
def test_every_state_has_at_least_half_the_titles_before_it(max_titles: int) -> None:
    draw = numpy_generator(max_titles, "chunks")
    offsets = np.concatenate([[0], np.cumsum(draw.integers(1, 30, size=20))])
    sequences = Sequences(items=np.zeros(offsets[-1], np.int32), times=np.arange(offsets[-1]), offsets=offsets)
    rows = np.flatnonzero(draw.random(offsets[-1]) < 0.7)
    chunks = cut(sequences, rows, max_titles=max_titles)
    assert np.concatenate([chunk.rows for chunk in chunks]).tolist() == rows.tolist()
    begin = offsets[np.searchsorted(offsets, rows, side="right") - 1]
    start = np.concatenate([np.full(len(chunk.rows), chunk.start) for chunk in chunks])
    shown, there = rows - start + 1, rows - begin + 1
    assert (start >= begin).all()
    assert (shown <= max_titles).all()
    assert (shown >= np.minimum(there, (max_titles + 1) // 2)).all()


def test_a_state_is_that_of_its_own_history_alone(tiny_llm: Path, titles: list[str]) -> None:
    llm = load_llm(str(tiny_llm))
    lines = Lines(llm.tokenizer, titles, title_tokens=8)
    items = np.array([3, 1, 4, 1, 5, 9 % len(titles), 2, 6], np.int32)
    with torch.inference_mode():
        together = states_of(
            llm, lines, items, [Chunk(start=0, rows=np.array([0, 1, 3])), Chunk(start=4, rows=np.array([7]))]
        )
        for place, (start, row) in enumerate([(0, 0), (0, 1), (0, 3), (4, 7)]):
            tokens, _ = lines.read(items[start : row + 1])
            alone = llm.model.base_model(input_ids=torch.tensor([tokens])).last_hidden_state[0, -1].float()
            torch.testing.assert_close(together[place], alone, rtol=2e-2, atol=2e-2)


def test_what_comes_later_does_not_change_a_state(tiny_llm: Path, titles: list[str]) -> None:
    llm = load_llm(str(tiny_llm))
    lines = Lines(llm.tokenizer, titles, title_tokens=8)
    rows = np.array([0, 1])
    with torch.inference_mode():
        one, other = (
            states_of(llm, lines, np.array(items, np.int32), [Chunk(start=0, rows=np.array([*rows, 2]))])
            for items in ([3, 1, 4], [3, 1, 0])
        )
    torch.testing.assert_close(one[:2], other[:2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(one[2], other[2])


def test_reading_goes_on_where_it_was(tiny_llm: Path, titles: list[str], tmp_path: Path) -> None:
    llm = load_llm(str(tiny_llm))
    lines = Lines(llm.tokenizer, titles, title_tokens=8)
    items = np.arange(30, dtype=np.int32) % len(titles)
    sequences = Sequences(items=items, times=np.arange(30), offsets=np.array([0, 10, 30]))
    rows = np.arange(0, 29, 2)
    whole = read_sequences(llm, lines, sequences, rows, max_titles=4, work=tmp_path / "a")
    (shard,) = (tmp_path / "a").glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-10])  # cut short: read again
    again = read_sequences(llm, lines, sequences, rows, max_titles=4, work=tmp_path / "a")
    np.testing.assert_array_equal(whole, again)
    before = shard.stat().st_mtime_ns
    read_sequences(llm, lines, sequences, rows, max_titles=4, work=tmp_path / "a")
    assert shard.stat().st_mtime_ns == before


# heads


def heads(items: int = 7, width: int = 5, size: int = 3) -> Heads:
    draw = torch_generator(0, "test")
    made = Heads(
        states=torch.randn(items, width, generator=draw),
        queries=torch.randn(20, width, generator=draw),
        counts=torch.arange(items),
        size=size,
        dropout=0.5,
        generator=draw,
    )
    with torch.no_grad():
        made.popularity_weight.fill_(0.3)
    return made


def test_the_loss_by_a_slow_loop() -> None:
    made = heads()
    states = torch.randn(4, 5, generator=torch_generator(1, "test"))
    drawn = Drawn(
        items=torch.tensor([0, 2, 3, 6]),
        log_weight=torch.tensor([0.0, 0.0, 0.7, 0.7]),
        target=torch.tensor([0, 1, 1, 0]),
    )
    loss = contrastive_loss(made, states, drawn, generator=None)
    x = ((states - made.mean) / made.deviation).detach().numpy().astype(np.float64)
    z = made.items.numpy().astype(np.float64)
    a, b = (weight.detach().numpy().astype(np.float64) for weight in (made.query_map, made.item_map))
    total = 0.0
    for row, column in enumerate([0, 1, 1, 0]):
        scores = [(a @ x[row]) @ (b @ z[item]) + 0.3 * np.log1p(item) for item in (0, 2, 3, 6)]
        weights = [1.0, 1.0, np.exp(0.7), np.exp(0.7)]
        total += np.log(sum(w * np.exp(s) for w, s in zip(weights, scores, strict=True))) - scores[column]
    assert float(loss.detach()) == pytest.approx(total / 4, rel=1e-5)


def test_with_all_items_drawn_it_is_the_full_softmax() -> None:
    made = heads()
    states = torch.randn(3, 5, generator=torch_generator(2, "test"))
    target = torch.tensor([5, 1, 5])
    near = torch.tensor([[1], [0], [3], [2], [5], [4], [0]])
    drawn = draw_items(
        target, near=near, competing=torch.arange(7), negatives=100, generator=torch_generator(0, "draw")
    )
    assert sorted(drawn.items.tolist()) == list(range(7))
    assert drawn.log_weight.abs().max() == 0
    scores = made.queries(states) @ made.embed().T + made.bias()
    expected = torch.nn.functional.cross_entropy(scores, target)
    torch.testing.assert_close(contrastive_loss(made, states, drawn, generator=None), expected)


def test_drawn_items_stand_for_the_rest() -> None:
    near = torch.arange(1, 101).remainder(100).unsqueeze(1)
    target = torch.tensor([10, 50, 10])
    competing = torch.arange(0, 100, 2)
    drawn = draw_items(target, near=near, competing=competing, negatives=8, generator=torch_generator(0, "draw"))
    certain = drawn.items[drawn.log_weight == 0]
    assert certain.tolist() == [10, 11, 50, 51]
    assert drawn.items[drawn.target].tolist() == target.tolist()
    extra = drawn.items[drawn.log_weight > 0]
    assert len(extra) == len(extra.unique()) == 8
    assert set(extra.tolist()) <= set(competing.tolist()) - {10, 50}
    assert drawn.log_weight.max() == pytest.approx(np.log(48 / 8))


def test_hard_negatives_are_the_nearest_that_compete() -> None:
    states = torch.randn(40, 6, generator=torch_generator(3, "test"))
    competing = torch.arange(0, 40, 3)
    found = hard_negatives(states, competing, 4)
    unit = torch.nn.functional.normalize((states - states.mean(0)) / states.std(0, correction=0), dim=1)
    for item in range(40):
        order = sorted(
            (other for other in competing.tolist() if other != item), key=lambda j: -float(unit[item] @ unit[j])
        )
        assert found[item].tolist() == order[:4]
    assert hard_negatives(states, competing[:1], 4).shape == (40, 0)


def test_heads_learn_what_follows_what_and_carry_it_to_an_item_no_one_chose() -> None:
    draw = numpy_generator(0, "heads")
    states = draw.normal(size=(60, 12)).astype(np.float32)
    turn = np.linalg.qr(draw.normal(size=(12, 12)))[0].astype(np.float32)
    item = draw.integers(0, 50, size=2000)  # items 50 to 59 are never chosen
    queries = (states[item] @ turn + 0.1 * draw.normal(size=(2000, 12))).astype(np.float16)
    counts = np.bincount(item, minlength=60)
    tensor = torch.from_numpy(states)
    fitted = fit_heads(
        states=tensor,
        queries=queries,
        target=item,
        counts=counts,
        near=hard_negatives(tensor, torch.arange(50), 2),
        settings=HeadSettings(size=12, epochs=20, batch_size=64, negatives=20, hard=2, learning_rate=1e-2),
        seed=0,
    )
    new = torch.from_numpy(states[50:] @ turn)
    with torch.inference_mode():
        best = (fitted.queries(new) @ fitted.embed().T).argmax(dim=1)
    assert (best == torch.arange(50, 60)).float().mean() >= 0.8


# the teacher


def test_labels_are_calibrated_log_probabilities(knowledge: Knowledge, tiny_dataset: Dataset) -> None:
    labels = knowledge.labels
    assert knowledge.manifest.teacher == "retrieval"
    assert labels.ranked_items.shape[1] == 5
    assert (np.diff(labels.distances, axis=1) >= 0).all()
    assert (labels.distances >= 0).all()
    assert (np.exp(-labels.distances).sum(axis=1) <= 1 + 1e-5).all()
    for split in ("validation", "test"):
        examples = tiny_dataset.examples(split)
        target = dict(zip(examples.example_id.tolist(), examples.target.tolist(), strict=True))
        for row, identity in enumerate(labels.example_id.tolist()):
            for place in np.flatnonzero(labels.ranked_items[row] == target.get(identity, -1)):
                assert labels.distances[row, place] == pytest.approx(labels.target_distance[row], abs=1e-5)


def test_whom_the_tuning_read_gets_no_label_in_training(knowledge: Knowledge, tiny_dataset: Dataset) -> None:
    train = tiny_dataset.training_examples("before-cut")
    labelled = np.isin(train.example_id, knowledge.labels.example_id)
    users = set(train.user.tolist())
    assert len(users) - len(set(train.user[labelled].tolist())) == 6
    assert not set(train.user[labelled].tolist()) & set(train.user[~labelled].tolist())


def test_training_examples_are_labelled_out_of_fold(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    plain = {"tuning": RetrievalTuningSettings(sequences=0), "heads": HeadSettings(size=16, epochs=60, batch_size=16)}
    seen = teach(tiny_dataset, tiny_llm, tmp_path / "seen", folds=1, **plain)
    fair = teach(tiny_dataset, tiny_llm, tmp_path / "fair", folds=3, **plain)
    train = np.isin(seen.labels.example_id, tiny_dataset.training_examples("before-cut").example_id)
    assert np.array_equal(seen.labels.example_id, fair.labels.example_id)
    # targets are drawn evenly: whoever believes to know them has seen them
    assert seen.labels.target_distance[train].mean() < fair.labels.target_distance[train].mean() - 0.2
    assert np.array_equal(seen.labels.target_distance[~train], fair.labels.target_distance[~train])


def test_a_run_that_is_cut_off_ends_with_the_same_labels(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, written = KnowledgeWriter.append, []

    def twice(self: KnowledgeWriter, labels: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(labels)
        append(self, labels)

    with monkeypatch.context() as patch:
        patch.setattr(KnowledgeWriter, "append", twice)
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_dataset, tiny_llm, tmp_path / "cut")
    assert_same_labels(teach(tiny_dataset, tiny_llm, tmp_path / "cut"), knowledge)
    assert not list(tmp_path.glob(".cut*"))


def test_what_reading_took_outlives_a_run_that_is_cut_off(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retrieval, "fit_heads", cut_off)
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_dataset, tiny_llm, tmp_path / "cut")
    (states,) = tmp_path.glob(".cut.reading-*/states")
    assert noted(states)["seconds"] > 0
    note(states, 0, 1000.0, [])  # as if the first run had taken that long
    done = teach(tiny_dataset, tiny_llm, tmp_path / "cut")
    assert 1000 < noted(done.path)["seconds"] < 1100
    assert noted(done.path)["examples"] == len(done.labels.example_id)


def test_tuning_that_is_cut_off_ends_with_the_same_labels(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval_tuning, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    loss, steps = retrieval_tuning.contrastive_loss, []

    def cut_off(*args: object, **kwargs: object) -> torch.Tensor:
        if len(steps) == 2:
            raise KeyboardInterrupt
        steps.append(1)
        return loss(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(retrieval_tuning, "contrastive_loss", cut_off)
        with pytest.raises(KeyboardInterrupt):
            teach(tiny_dataset, tiny_llm, tmp_path / "cut")
    assert list(tmp_path.glob(".cut*/tuning.safetensors"))
    assert_same_labels(teach(tiny_dataset, tiny_llm, tmp_path / "cut"), knowledge)


def test_tuning_changes_the_labels_and_the_same_again_changes_nothing(
    knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    untuned = teach(tiny_dataset, tiny_llm, tmp_path / "plain", tuning=RetrievalTuningSettings(sequences=0))
    assert not np.array_equal(untuned.item_vectors, knowledge.item_vectors)
    file = next(knowledge.path.glob("labels-*.parquet"))
    before = file.stat().st_mtime_ns
    assert_same_labels(teach(tiny_dataset, tiny_llm, knowledge.path), knowledge)
    assert file.stat().st_mtime_ns == before


def test_a_limit_labels_user_by_user(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    few = teach(tiny_dataset, tiny_llm, tmp_path / "few", {"train": 10, "validation": 0, "test": 0})
    train = tiny_dataset.training_examples("before-cut")
    labelled = train.take(np.isin(train.example_id, few.labels.example_id))
    assert len(few.labels) == len(labelled) == 10
    per_user = np.bincount(train.user)[np.unique(labelled.user)]
    assert len(np.unique(labelled.user)) <= 10 / per_user.min() + 1


@pytest.mark.parametrize(
    ("limits", "word"),
    [({"train": 10**6}, "limits.train: 1000000 is more than"), ({"train": 0}, "give some"), ({"test": 10**6}, "test")],
)
def test_impossible_limits_are_one_line(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path, limits: dict, word: str
) -> None:
    with pytest.raises(UserError, match=word):
        teach(tiny_dataset, tiny_llm, tmp_path / "none", LIMITS | limits)
    assert not (tmp_path / "none").exists()


def test_tuning_that_reads_everyone_leaves_nobody_to_label(
    tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path
) -> None:
    tuning = RetrievalTuningSettings(sequences=10**6)
    with pytest.raises(UserError, match=r"tuning\.sequences: .* nobody is left to label; lower it"):
        teach(tiny_dataset, tiny_llm, tmp_path / "none", LIMITS, tuning=tuning)
    with pytest.raises(UserError, match=r"tuning\.sequences"):
        labelled_in_training(tiny_dataset, RetrievalSettings(tuning=tuning), seed=0)


def test_other_knowledge_is_refused(knowledge: Knowledge, tiny_dataset: Dataset, tiny_llm: Path) -> None:
    with pytest.raises(UserError, match=r"settings.max_titles is 4, asked for 6"):
        teach(tiny_dataset, tiny_llm, knowledge.path, max_titles=6)


def test_items_are_read_as_histories_of_one(tiny_llm: Path, titles: list[str]) -> None:
    llm = load_llm(str(tiny_llm))
    lines = Lines(llm.tokenizer, titles, title_tokens=8)
    alone = item_states(llm, lines)
    with torch.inference_mode():
        first = states_of(llm, lines, np.array([5], np.int32), [Chunk(start=0, rows=np.array([0]))])
    np.testing.assert_allclose(alone[5], first[0].numpy(), rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(alone[0], alone[-1], rtol=2e-2, atol=2e-2)  # the same title twice


def test_items_of_the_history_are_left_out_of_its_sum() -> None:
    made = heads()
    states = torch.randn(3, 5, generator=torch_generator(4, "test"))
    drawn = Drawn(items=torch.tensor([6, 0, 3, 2]), log_weight=torch.zeros(4), target=torch.tensor([1, 3, 1]))
    history = torch.tensor([[7, 6, 6], [2, 5, 7], [7, 7, 7]])  # the second holds its target; 7 is padding
    found = contrastive_loss(made, states, drawn, history=history, generator=None)
    scores = made.queries(states) @ made.embed(drawn.items).T + made.bias(drawn.items)
    scores = scores.detach().clone()
    scores[0, 0] = -torch.inf
    torch.testing.assert_close(found, torch.nn.functional.cross_entropy(scores, drawn.target))


def test_what_was_just_chosen_is_not_labelled_where_repeats_are_rare(
    tiny_llm: Path, titles: list[str], tmp_path: Path
) -> None:
    rows = [  # each user takes other items, in an order of his own
        (user, int(item), 1000 * step + user)
        for user in range(60)
        for step, item in enumerate(numpy_generator(user, "log").permutation(len(titles))[:6])
    ]
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(f"{u},{i},{t}" for u, i, t in rows))
    (tmp_path / "items.csv").write_text("item_id,title\n" + "\n".join(f"{i},{t}" for i, t in enumerate(titles)))
    dataset = write_dataset(
        read_log(tmp_path / "log.csv", tmp_path / "items.csv"), PaperSplit(), tmp_path / "d", name="once"
    )
    found = teach(dataset, tiny_llm, tmp_path / "k", tuning=RetrievalTuningSettings(sequences=0)).labels
    for examples in (dataset.training_examples("before-cut"), dataset.examples("validation")):
        history = dict(zip(examples.example_id.tolist(), examples.history, strict=True))
        for identity, items in zip(found.example_id.tolist(), found.ranked_items, strict=True):
            assert identity not in history or not set(items.tolist()) & set(history[identity].tolist())


def test_the_temperature_makes_the_true_items_likeliest(tiny_dataset: Dataset, tiny_llm: Path, tmp_path: Path) -> None:
    # targets are drawn evenly, so nothing is surer than chance on what no one has seen
    hot = HeadSettings(size=16, epochs=100, batch_size=16, learning_rate=1e-2)
    plain = {"tuning": RetrievalTuningSettings(sequences=0), "heads": hot}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "_ENOUGH", 1)
        calm = teach(tiny_dataset, tiny_llm, tmp_path / "calm", **plain)
    wild = teach(tiny_dataset, tiny_llm, tmp_path / "wild", **plain)  # too few validation examples: as the heads say
    held_out = np.isin(calm.labels.example_id, tiny_dataset.examples("test").example_id)
    assert calm.labels.target_distance[held_out].mean() < wild.labels.target_distance[held_out].mean()
    assert calm.labels.target_distance[held_out].mean() < np.log(tiny_dataset.num_items) + 0.5


def test_states_that_tell_nothing_apart_are_not_blown_up() -> None:
    settings = HeadSettings(size=4)
    states = torch.randn(20, 6, generator=torch_generator(0, "s"))
    one = states[:1].numpy().repeat(3, axis=0)  # all that was read is alike
    heads = first_heads(states=states, queries=one, counts=np.ones(20, int), settings=settings, seed=0)
    assert heads.queries(states).abs().max() < 20
