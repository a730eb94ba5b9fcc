from pathlib import Path

import numpy as np
import pytest
import torch

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
