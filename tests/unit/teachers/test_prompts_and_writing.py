import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Lfm2Config,
    MambaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from dllm2rec.core.errors import UserError
from dllm2rec.teachers.generation import TitleTrie, write
from dllm2rec.teachers.grounding import text_states
from dllm2rec.teachers.llm import LanguageModel, load_llm
from dllm2rec.teachers.prompts import INSTRUCTION, RESPONSE, Prompts


@pytest.fixture(scope="module")
def llm(tiny_llm: Path) -> LanguageModel:
    loaded = load_llm(str(tiny_llm))
    return LanguageModel(
        model=loaded.model.float(), tokenizer=loaded.tokenizer, name=loaded.name, revision=loaded.revision
    )


@pytest.fixture(scope="module")
def prompts(llm: LanguageModel, titles: list[str]) -> Prompts:
    return Prompts(llm.tokenizer, titles, max_titles=3, title_tokens=8, prompt_tokens=400)


def history(*items: int, pad: int) -> np.ndarray:
    return np.array([pad] * (6 - len(items)) + list(items), np.int32)


def test_a_prompt_tells_the_newest_titles_last(prompts: Prompts, llm: LanguageModel, titles: list[str]) -> None:
    told = llm.tokenizer.decode(prompts.prompt(history(0, 1, 2, 3, pad=len(titles))))
    assert told == INSTRUCTION + "".join(f"{titles[item]}\n" for item in (1, 2, 3)) + RESPONSE
    assert prompts.prompt(history(pad=len(titles))) == prompts.prefix + prompts.rest(history(pad=len(titles)))


def test_a_prompt_without_room_drops_the_oldest_titles(llm: LanguageModel, titles: list[str]) -> None:
    full = Prompts(llm.tokenizer, titles, max_titles=10, title_tokens=8, prompt_tokens=400)
    long = full.prompt(history(0, 1, 2, pad=len(titles)))
    short = Prompts(llm.tokenizer, titles, max_titles=10, title_tokens=8, prompt_tokens=len(long) - 1)
    assert short.prompt(history(0, 1, 2, pad=len(titles))) == full.prompt(history(1, 2, pad=len(titles)))
    tiny = Prompts(llm.tokenizer, titles, max_titles=10, title_tokens=8, prompt_tokens=1)
    assert tiny.prompt(history(0, 1, 2, pad=len(titles))) == full.prompt(history(2, pad=len(titles)))


def test_long_titles_are_cut(llm: LanguageModel) -> None:
    prompts = Prompts(llm.tokenizer, ["red " * 50], max_titles=1, title_tokens=4, prompt_tokens=400)
    assert len(prompts.answer(0)) == 4 + len(prompts.newline)


def test_a_title_that_spells_a_special_token_is_plain_text(llm: LanguageModel) -> None:
    end = llm.tokenizer.eos_token
    title = f"red {end} robot"
    prompts = Prompts(llm.tokenizer, [title], max_titles=1, title_tokens=40, prompt_tokens=400)
    assert llm.tokenizer.eos_token_id not in prompts.prompt(np.array([0], np.int32))
    assert llm.tokenizer.eos_token_id not in prompts.answer(0)
    assert prompts.text(prompts.titles[0]) == title


def test_greedy_writing_agrees_with_transformers(llm: LanguageModel, prompts: Prompts, titles: list[str]) -> None:
    generator = np.random.default_rng(0)
    histories = [history(*generator.integers(0, 16, size=n), pad=len(titles)) for n in (1, 3, 2, 5, 4, 1, 2)]
    ends = prompts.newline
    ours = write(
        llm, [prompts.rest(h) for h in histories], prefix=prompts.prefix, ends=ends, max_new_tokens=9, batch_size=3
    )
    for one, told in zip(ours, histories, strict=True):
        ids = torch.tensor([prompts.prompt(told)])
        theirs = llm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=9,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=0,
        )[0, ids.shape[1] :].tolist()
        place = next((at for at, token in enumerate(theirs) if token in ends), None)
        assert one.tokens == theirs[:place]
        assert one.finished == (place is not None)


def test_a_dead_end_in_the_trie_is_reported(llm: LanguageModel, prompts: Prompts, titles: list[str]) -> None:
    (end,) = prompts.newline
    trie = TitleTrie(prompts.titles, end=end)
    rest = [prompts.rest(history(item, pad=len(titles))) for item in range(5)]
    arguments = {"prefix": prompts.prefix, "ends": [end], "batch_size": 5, "trie": trie}
    whole = write(llm, rest, max_new_tokens=9, **arguments)
    assert all(one.finished and one.tokens in prompts.titles for one in whole)
    assert not any(one.finished for one in write(llm, rest, max_new_tokens=1, **arguments))


def test_a_trie_allows_what_continues_a_title() -> None:
    trie = TitleTrie([[1, 2], [1, 3], [1]], end=9)
    assert sorted(trie.allowed([])) == [1]
    assert sorted(trie.allowed([1])) == [2, 3, 9]
    assert trie.allowed([1, 2]) == [9]
    assert trie.allowed([7]) == [9]


def test_the_state_of_a_text_does_not_depend_on_its_neighbours(llm: LanguageModel, prompts: Prompts) -> None:
    together = text_states(llm, prompts.titles)
    for item, title in enumerate(prompts.titles):
        alone = llm.model.base_model(input_ids=torch.tensor([title])).last_hidden_state[0, -1]
        np.testing.assert_allclose(together[item], alone.detach().numpy(), atol=1e-5)


def test_a_line_ends_with_one_token_where_texts_begin_with_a_space(titles: list[str]) -> None:
    """LLaMA's tokenizer puts a space before every text; one before the line break would be a part of the title."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False, initial_alphabet=["\n"])
    tokenizer.train_from_iterator([*titles, INSTRUCTION, RESPONSE] * 5, trainer)
    spacing = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    assert len(spacing("\n", add_special_tokens=False).input_ids) == 2
    prompts = Prompts(spacing, titles, max_titles=3, title_tokens=30, prompt_tokens=400)
    for item, title in enumerate(titles):
        assert prompts.answer(item) == spacing(f"{title}\n", add_special_tokens=False).input_ids
        assert prompts.grounded(prompts.answer(item)[:-1]) == prompts.grounded(prompts.titles[item])
    spacing.unk_token = "\n"
    with pytest.raises(UserError, match="no line break"):
        Prompts(spacing, titles, max_titles=3, title_tokens=30, prompt_tokens=400)


COMMON = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.2,
}


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**COMMON, sliding_window=64),
        MistralConfig(**COMMON, sliding_window=16),
        Lfm2Config(**COMMON, layer_types=["conv", "full_attention"]),
        MambaConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, state_size=4, initializer_range=0.2),
    ],
    ids=["all in the window", "beyond the window", "a state beside the attention", "a state"],
)
def test_a_text_does_not_depend_on_its_neighbours(config: PretrainedConfig) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    llm = LanguageModel(model=model, tokenizer=None, name="mine", revision="0")
    generator = np.random.default_rng(0)
    prefix = generator.integers(6, 60, size=5).tolist()
    rest = [generator.integers(6, 60, size=length).tolist() for length in (7, 12, 9, 7, 3, 8)]
    options = {"prefix": prefix, "ends": [2, 5], "max_new_tokens": 8}
    together = write(llm, rest, batch_size=6, **options)
    assert together == [write(llm, [one], batch_size=1, **options)[0] for one in rest]
    assert len({tuple(one.tokens) for one in together}) > 1


def test_what_a_model_adds_to_chats_is_not_for_titles(tiny_llm: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_llm, tmp_path / "chat")
    (tmp_path / "chat" / "generation_config.json").write_text('{"repetition_penalty": 1.3, "no_repeat_ngram_size": 2}')
    found = load_llm(str(tmp_path / "chat")).model.generation_config
    assert (found.repetition_penalty, found.no_repeat_ngram_size) == (None, None)
