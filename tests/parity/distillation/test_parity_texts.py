"""KAR and LLM-CF against slow loops in NumPy, and what they must do in a student."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dllm2rec.core.errors import UserError
from dllm2rec.core.seeding import numpy_generator, torch_generator
from dllm2rec.data import Examples
from dllm2rec.distillation.kar import HybridExperts, KARSettings, fact_vectors, read_with_kar
from dllm2rec.distillation.llm_cf import ChainReader, LLMCFSettings, mean_titles, read_with_llm_cf
from dllm2rec.distillation.methods import require_needs
from dllm2rec.knowledge.store import Knowledge, KnowledgeManifest, Labels
from dllm2rec.knowledge.texts import Texts
from dllm2rec.losses.bce import BCELoss
from dllm2rec.students.base import Student
from dllm2rec.students.factory import build_student
from dllm2rec.students.initialise import initialise
from dllm2rec.students.sasrec import SASRecSettings
from dllm2rec.training import FitSettings, fit

V, U, N, L, D, DT = 20, 12, 30, 4, 6, 5
RNG = numpy_generator(0, "texts")


def texts(keys: list[int]) -> Texts:
    vectors = RNG.normal(size=(len(keys), DT)).astype(np.float32)
    return Texts(key=np.array(keys, np.int64), text=["said"] * len(keys), vectors=vectors)


def make_knowledge() -> Knowledge:
    manifest = KnowledgeManifest(
        dataset_hash="0" * 16,
        num_items=V,
        teacher="texts",
        model="m",
        revision="r",
        depth=0,
        vector_size=DT,
    )
    vectors = RNG.normal(size=(V, DT)).astype(np.float32)
    found = {"item": texts([0, 2, 3, 9, 11]), "user": texts([1, 4, 5]), "chain": texts([100, 103, 107, 109, 111, 120])}
    return Knowledge(path=Path("k"), manifest=manifest, labels=Labels.empty(0), item_vectors=vectors, texts=found)


KNOWLEDGE = make_knowledge()
TRAIN = Examples(
    example_id=np.arange(100, 100 + N, dtype=np.int64),
    user=(np.arange(N) % U).astype(np.int32),
    history=RNG.integers(0, V, (N, L)).astype(np.int32),
    target=RNG.integers(0, V, N).astype(np.int32),
    time=np.arange(N, dtype=np.int64),
    num_items=V,
)
HISTORY = torch.from_numpy(RNG.integers(0, V + 1, (7, L)))
USER = torch.tensor([0, 1, 4, 4, 7, 5, 11])


def student(method: str | None, *, weight: float | None = None) -> Student:
    reads = method == "kar" and weight != 0
    vectors = torch.from_numpy(fact_vectors(KNOWLEDGE, V)) if reads else None
    built = build_student(
        SASRecSettings(dim=D, dropout=0.2),
        num_items=V,
        history=L,
        item_vectors=vectors,
        generator=torch_generator(0, "student"),
    )
    generator = torch_generator(0, "method")
    if method == "kar" and weight != 0:
        settings = KARSettings(hidden=7, size=4)
        read_with_kar(built, KNOWLEDGE, settings, num_users=U, generator=generator)
    if method == "llm-cf" and weight != 0:
        read_with_llm_cf(built, KNOWLEDGE, TRAIN, LLMCFSettings(neighbours=3), generator=generator)
    return built


def numpy_of(module: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in module.named_parameters()}


def slow_experts(weights: dict[str, np.ndarray], vector: np.ndarray, side: str) -> np.ndarray:
    """What the adaptor says of one text, expert by expert."""
    gate = weights[f"{side}_gate.weight"] @ vector + weights[f"{side}_gate.bias"]
    total = sum(math.exp(value) for value in gate)
    names = ["shared.0", "shared.1", *(f"of_{side}s.{number}" for number in range(5))]
    said = np.zeros(4)
    for value, name in zip(gate, names, strict=True):
        inner = weights[f"{name}.0.weight"] @ vector + weights[f"{name}.0.bias"]
        inner = np.array([max(0.0, one) for one in inner])
        said += math.exp(value) / total * (weights[f"{name}.2.weight"] @ inner + weights[f"{name}.2.bias"])
    return weights[f"{side}_join.weight"] @ said


def test_the_experts_of_kar_agree_with_a_slow_loop() -> None:
    known = torch.tensor([True, False, True])
    experts = HybridExperts(size=DT, dim=D, known=known, settings=KARSettings(hidden=7, size=4, weight=0.5))
    experts.initialise(torch_generator(1, "experts"), std=1.0)
    vectors = torch.from_numpy(RNG.normal(size=(3, DT)).astype(np.float32))
    weights = numpy_of(experts)
    expected = [0.5 * slow_experts(weights, vector.numpy(), "item") for vector in vectors]
    expected[1] = np.zeros(D)  # nothing is known of it
    np.testing.assert_allclose(experts(vectors).detach().numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(experts(vectors, torch.tensor([2])).detach().numpy(), expected[2:], atol=1e-6)
    expected = [0.5 * slow_experts(weights, vector.numpy(), "user") for vector in vectors]
    np.testing.assert_allclose(experts.users(vectors).detach().numpy(), expected, atol=1e-6)


def slow_norm(state: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (state - state.mean()) / math.sqrt(state.var() + 1e-5) * weight + bias


@pytest.mark.parametrize("training", [False, True])
def test_what_llm_cf_adds_agrees_with_a_slow_loop(training: bool) -> None:
    settings = LLMCFSettings(neighbours=3, weight=0.3, dropout=0)
    titles = KNOWLEDGE.item_vectors.astype(np.float64)
    chains = KNOWLEDGE.texts["chain"]
    rows = [int(np.flatnonzero(TRAIN.example_id == key)[0]) for key in chains.key]
    keys = np.array([titles[TRAIN.history[row]].mean(axis=0) for row in rows])
    about = [0, 4, 4, 4, 4, 5]  # two chains are left for user 4
    reader = ChainReader(
        titles=torch.from_numpy(KNOWLEDGE.item_vectors),
        keys=torch.from_numpy(keys.astype(np.float32)),
        chains=torch.from_numpy(chains.vectors),
        users=torch.tensor(about),
        dim=D,
        settings=settings,
    )
    initialise(reader, torch_generator(2, "reader"))
    reader.train(training)
    w = numpy_of(reader)
    scale = lambda values, like: (values - like.mean(axis=0)) / like.std(axis=0)  # noqa: E731
    histories = torch.cat([HISTORY, torch.from_numpy(TRAIN.history[rows[2]].astype(np.int64))[None]])
    asking = [*USER.tolist(), 4]
    found = reader(histories, torch.tensor(asking) if training else None).detach().numpy()
    for row, history in enumerate(histories.tolist()):
        items = [item for item in history if item != V]
        query = titles[items].mean(axis=0) if items else np.zeros(DT)
        cosine = [float(query @ key) / (np.linalg.norm(query) * np.linalg.norm(key) or 1.0) for key in keys]
        allowed = [
            one for one in range(len(keys)) if cosine[one] < 1 - 1e-5 and not (training and about[one] == asking[row])
        ]
        order = sorted(allowed, key=lambda one: -cosine[one])[:3]
        states = []
        for place, one in enumerate(reversed(order), start=3 - len(order)):
            key, chain = scale(keys, keys)[one], scale(chains.vectors, chains.vectors)[one]
            state = w["of_history.weight"] @ key + w["of_history.bias"] + w["of_chain.weight"] @ chain
            states.append(state + w["of_chain.bias"] + w["positions.weight"][place])
        asked = w["of_history.weight"] @ scale(query, keys) + w["of_history.bias"] + w["positions.weight"][3]
        states.append(asked)
        normed = slow_norm(asked, w["block.attention_norm.weight"], w["block.attention_norm.bias"])
        q = w["block.query.weight"] @ normed + w["block.query.bias"]
        logits = [float(q @ (w["block.key.weight"] @ state)) / math.sqrt(D) for state in states]
        total = sum(math.exp(value) for value in logits)
        attended = normed.copy()
        for value, state in zip(logits, states, strict=True):
            attended += math.exp(value) / total * (w["block.value.weight"] @ state + w["block.value.bias"])
        normed = slow_norm(attended, w["block.forward_norm.weight"], w["block.forward_norm.bias"])
        inner = np.maximum(0, w["block.inner.weight"] @ normed + w["block.inner.bias"])
        last = normed + w["block.outer.weight"] @ inner + w["block.outer.bias"]
        expected = 0.3 * slow_norm(last, w["norm.weight"], w["norm.bias"])
        np.testing.assert_allclose(found[row], expected, atol=1e-5, err_msg=str(row))
    assert mean_titles(torch.zeros(V + 1, DT), torch.full((1, L), V)).isfinite().all()


def trained(model: Student, run: Path, epochs: int = 2) -> dict[str, torch.Tensor]:
    settings = FitSettings(epochs=epochs, batch_size=8, learning_rate=0.01)
    fit(
        student=model,
        loss=BCELoss(),
        distillers=[],
        train=TRAIN,
        validation=TRAIN,
        settings=settings,
        run=run,
        seed=1,
    )
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("method", ["kar", "llm-cf"])
def test_readers_learn_and_a_resumed_run_ends_with_the_same_weights(method: str, tmp_path: Path) -> None:
    whole = trained(student(method), tmp_path / "whole")
    trained(student(method), tmp_path / "parts", epochs=1)
    resumed = trained(student(method), tmp_path / "parts")
    first = student(method).state_dict()
    own = [name for name in whole if "reader" in name or "projector" in name]
    assert own
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert any(not torch.equal(whole[name], first[name]) for name in own)


def test_llm_cf_in_training_reads_no_chain_about_the_user() -> None:
    reader = student("llm-cf").reader
    assert isinstance(reader, ChainReader)
    history = torch.from_numpy(TRAIN.history.astype(np.int64))
    user = torch.from_numpy(TRAIN.user.astype(np.int64))
    about = torch.tensor([TRAIN.user[TRAIN.example_id == key].item() for key in KNOWLEDGE.texts["chain"].key])
    query = reader.describe(history)
    near, there = reader.train().retrieve(query, user)
    assert there.all()  # five are left for whoever has one
    assert not (about[near] == user.unsqueeze(1)).any()
    with pytest.raises(ValueError, match="who the users are"):
        reader(history, None)
    near, _ = reader.eval().retrieve(query, None)  # what is asked then is later than all chains about the user
    others = ~torch.isin(torch.from_numpy(TRAIN.example_id), torch.from_numpy(KNOWLEDGE.texts["chain"].key))
    assert (about[near] == user.unsqueeze(1))[others].any()


def test_kar_adds_what_is_known_of_the_user_and_needs_to_be_told_who_it_is() -> None:
    model = student("kar").eval()
    told, other = model.encode(HISTORY, user=USER), model.encode(HISTORY, user=torch.zeros_like(USER))
    silent = [0, 4, 6]  # users 0, 7 and 11 have no text
    assert torch.equal(told[silent], other[silent])
    assert not torch.isclose(told[1], other[1]).all()
    with pytest.raises(ValueError, match="who the users are"):
        model.encode(HISTORY)


@pytest.mark.parametrize(("method", "words"), [(KARSettings(), "items.*kar"), (LLMCFSettings(), "chains.*llm-cf")])
def test_knowledge_without_texts_is_refused(method: KARSettings | LLMCFSettings, words: str) -> None:
    bare = Knowledge(path=Path("k"), manifest=KNOWLEDGE.manifest, labels=Labels.empty(0), item_vectors=None)
    with pytest.raises(UserError, match=rf"{words}.*--teacher texts"):
        require_needs(method, bare)
