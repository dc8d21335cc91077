"""What tokenizer files name is there after loading, and after saving and loading again."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from mudd_interp.checkpoints import load_model, save_model
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from tests.parity.family import FAMILY, random_model
from tests.unit.checkpoints import released_folder
from tests.unit.checkpoints.test_bridged import tiny_pythia

WORDS = ["<unk>", "<s>", "</s>", "<pad>", "<|im|>", "a", "rose", "is", "<|endoftext|>"]
MARK = b"\xef\xbb\xbf"
NAMED = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


def backend() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return tokenizer


def folder(path: Path, **files: Any) -> Path:
    """A tokenizer with files beside it: ``tokenizer_config={...}``."""
    path.mkdir(exist_ok=True)
    backend().save(str(path / "tokenizer.json"))
    for name, values in files.items():
        (path / f"{name}.json").write_text(json.dumps(values))
    return path


def loaded(path: Path) -> Any:
    return load_tokenizer(path / "tokenizer.json")


def test_what_a_tokenizer_names_stays_over_rounds(tmp_path: Path):
    model: Any = random_model(FAMILY["MUDDFormer"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend(),
        additional_special_tokens=["<|im|>"],
        padding_side="left",
        model_max_length=77,
        chat_template="{{ messages }}",
        **NAMED,
    )
    model.tokenizer = tokenizer
    for number in range(2):
        model = load_model(save_model(model, tmp_path / str(number)))
        kept: Any = model.tokenizer
        assert kept.special_tokens_map == tokenizer.special_tokens_map == NAMED
        assert kept.all_special_tokens == tokenizer.all_special_tokens
        assert kept.get_vocab() == tokenizer.get_vocab()
        assert (kept.padding_side, kept.model_max_length) == ("left", 77)
        assert kept.chat_template == "{{ messages }}"
        assert model.to_tokens("a rose", prepend_bos=True).tolist() == [[1, 5, 6]]


@pytest.mark.parametrize("name", ["tokenizer_config", "special_tokens_map"])
def test_special_tokens_are_those_of_either_file(tmp_path: Path, name: str):
    spelled = {key: {"content": token, "lstrip": False} for key, token in NAMED.items()}
    for values in (NAMED, spelled):
        path = folder(tmp_path, **{name: values | {"additional_special_tokens": ["<|im|>"]}})
        assert loaded(path).special_tokens_map == NAMED
        assert "<|im|>" in loaded(path).all_special_tokens


def test_one_file_goes_before_the_other_where_it_says_something(tmp_path: Path):
    config = {"eos_token": "<|im|>", "bos_token": None}
    path = folder(tmp_path, special_tokens_map=NAMED, tokenizer_config=config)
    assert loaded(path).special_tokens_map == NAMED | {"eos_token": "<|im|>"}


def test_what_is_not_named(tmp_path: Path):
    """The end is ``<|endoftext|>``, and so is the beginning; there is no unknown token."""
    path = folder(tmp_path)
    end = "<|endoftext|>"
    assert loaded(path).special_tokens_map == {"bos_token": end, "eos_token": end}
    path = folder(tmp_path, tokenizer_config={"eos_token": "</s>", "pad_token": "<nowhere>"})
    tokenizer = loaded(path)
    assert tokenizer.special_tokens_map == {"bos_token": "</s>", "eos_token": "</s>"}
    assert len(tokenizer) == len(WORDS)


def test_added_tokens_are_added_under_their_ids(tmp_path: Path):
    config = NAMED | {"added_tokens_decoder": {"10": {"content": "<x>", "special": True}}}
    path = folder(tmp_path, added_tokens={"<|new|>": 9}, tokenizer_config=config)
    tokenizer = loaded(path)
    assert tokenizer.get_vocab()["<|new|>"] == 9
    assert tokenizer("a <|new|> <x>")["input_ids"] == [5, 9, 10]
    assert [token.special for token in tokenizer.added_tokens_decoder.values()][-1]
    folder(tmp_path, added_tokens={"<|new|>": 12})
    with pytest.raises(ValueError, match=r"do not belong together: '<x>' is id 9 and named as 10"):
        loaded(path)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_config", "special_tokens_map"])
def test_a_byte_order_mark_is_no_fault(tmp_path: Path, name: str):
    path = folder(tmp_path, tokenizer_config=NAMED, special_tokens_map=NAMED)
    file = path / f"{name}.json"
    file.write_bytes(MARK + file.read_bytes())
    assert loaded(path).special_tokens_map == NAMED


def test_a_damaged_file_is_named(tmp_path: Path):
    path = folder(tmp_path, tokenizer_config=NAMED)
    (path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not JSON.*copy it again"):
        loaded(path)


def test_marks_in_front_of_all_json_files_of_a_model(tmp_path: Path):
    expected = load_model(released_folder.write_shards(tmp_path / "plain")).info.digest
    path = folder(released_folder.write_shards(tmp_path / "marked"), tokenizer_config=NAMED)
    for file in path.glob("*.json"):
        file.write_bytes(MARK + file.read_bytes())
    model = load_model(path)
    assert model.info.digest == expected
    assert model.tokenizer.special_tokens_map == NAMED


@pytest.mark.parametrize("name", ["config", "tokenizer_config", "generation_config"])
def test_a_mark_with_which_transformers_cannot_read_a_baseline_is_named(tmp_path: Path, name: str):
    tiny_pythia().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=backend(), **NAMED).save_pretrained(tmp_path)
    file = tmp_path / f"{name}.json"
    file.write_bytes(MARK + file.read_bytes())
    message = rf"{name}\.json begins with a byte order mark.*save it as UTF-8 without one"
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, check=False)


def test_many_added_tokens_are_added_at_once(tmp_path: Path):
    path = folder(tmp_path, added_tokens={f"<{i}>": len(WORDS) + i for i in range(20_000)})
    begun = time.process_time()
    assert loaded(path).convert_tokens_to_ids("<19999>") == len(WORDS) + 19_999
    assert time.process_time() - begun < 20  # one by one it takes minutes


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_a_file_that_is_longer_than_any_is_not_read(name: str, tmp_path: Path):
    folder(tmp_path)
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**34)  # without contents on the disk
    with pytest.raises(ValueError, match=f"{name} .*larger than 67,108,864 bytes"):
        loaded(tmp_path)
