"""A request -> the tokens that a model sees: its corpus as batches, its prompt as one sequence."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mudd_interp.axes import END_OF_TEXT
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.data import (
    BUNDLED_PACK,
    Batches,
    Packing,
    bundled_batches,
    dataset_batches,
    document_batches,
    file_batches,
    folder_batches,
    id_batches,
    take,
)
from mudd_interp.documents import text_files_of
from mudd_interp.encoding import decode
from mudd_interp.files import known_sha256
from mudd_interp.model.token_ids import check_tokens
from mudd_interp.model.tokens import Tokens
from mudd_interp.pictures import image_batches_of, image_files, image_of, reads_images
from mudd_interp.protocol import HookedModel, Inputs, require_traits
from mudd_interp.request import Request, canonical

FIRST_TOKENS = 32
"""Tokens of the corpus that stand in for a prompt: as many as in the paper's Figs. 10 and 11."""


def corpus_of(request: Request, model: HookedModel, models: Sequence[HookedModel]) -> Batches:
    """The batches that a request names, in the tokens of one of its models.

    Raises:
        ValueError: If the request names two texts, or a text and a model without tokenizer, or the
            model reads no tokens.
    """
    if reads_images(model):
        return image_batches_of(request, model)
    _refuse_images(request, model)
    require_traits(model, "a text", ["tokens"])
    if request.text is not None and request.dataset is not None:
        raise ValueError("give a text or a dataset, not both.")
    if request.text is None and request.dataset is None:
        batches = _bundled_text(model, packing(request, models))
    else:
        batches = _named_text(request, require_tokenizer(model), packing(request, models))
    return batches if request.sequences is None else take(batches, request.sequences)


def _refuse_images(request: Request, model: HookedModel) -> None:
    if request.images is not None:
        raise ValueError(
            f"images are for models that read them, and {model.info.name} reads text: leave them "
            "out, or name a model of images."
        )


def packing(request: Request, models: Sequence[HookedModel]) -> Packing:
    """How a text is cut up, the same for all models."""
    longest = min(model.cfg.n_ctx for model in models)
    context = min(256, longest) if request.context is None else request.context
    if context > longest:
        raise ValueError(f"{context} tokens do not fit the models' context of {longest}.")
    return Packing(n_ctx=context, batch_size=request.batch_size)


def _named_text(request: Request, tokenizer: Any, how: Packing) -> Batches:
    """A file, a folder or a dataset."""
    if request.dataset is not None:
        return dataset_batches(
            request.dataset,
            tokenizer,
            how,
            config=request.dataset_config,
            split=request.split,
            column=request.column,
        )
    assert request.text is not None
    path = Path(request.text)
    if path.is_dir():
        return folder_batches(path, tokenizer, how)
    return file_batches([path], tokenizer, how)


def _bundled_text(model: HookedModel, how: Packing) -> Batches:
    """The bundled held-out text.

    In the context that it was cut for, it is used as it is. In another one, each of its sequences,
    an excerpt of a file, is a document: its ids for the bundled tokenizer, else its text encoded
    anew.
    """
    pack = bundled_batches(batch_size=how.batch_size)
    reader, tokenizer = load_tokenizer(BUNDLED_FOLDER / "tokenizer.json"), require_tokenizer(model)
    is_readers = tokenizer.get_vocab() == reader.get_vocab()
    rows = [row for tokens in pack for row in tokens.tolist()]
    if is_readers and how.n_ctx == len(rows[0]):
        return pack
    separator = reader.get_vocab()[END_OF_TEXT]  # stands before an excerpt that begins a file
    documents = [row[row[0] == separator :] for row in rows]
    if is_readers:
        return id_batches(documents, tokenizer, how, f"{pack.description}, cut anew")
    texts = [decode(reader, ids) for ids in documents]
    return document_batches(texts, tokenizer, how, f"{pack.description}, encoded anew")


def require_tokenizer(model: HookedModel) -> Any:
    """The model's tokenizer.

    Raises:
        ValueError: If it has none.
    """
    if model.tokenizer is None:
        raise ValueError(
            f"{model.info.name} came without a tokenizer, so text means nothing to it: put a "
            "tokenizer.json beside its weights, or give token ids."
        )
    return model.tokenizer


def prompt_of(request: Request, model: HookedModel, models: Sequence[HookedModel]) -> Inputs:
    """The prompt in the tokens of one model; without one, the first tokens of the corpus.

    For a model of images, the image that is asked for.

    Raises:
        ValueError: If it does not fit the model's context, or an id is outside its vocabulary, or
            the model reads no tokens.
    """
    if reads_images(model):
        return image_of(request, model)[0]
    _refuse_images(request, model)
    require_traits(model, "a prompt of tokens", ["tokens"])
    if request.prompt_ids is not None:
        tokens = torch.tensor([request.prompt_ids], dtype=torch.int64)
    elif request.prompt is not None:
        words = Tokens(require_tokenizer(model), model.cfg)
        tokens = words.to_tokens(request.prompt, move_to_device=False)
    else:
        return next(iter(corpus_of(request, model, models)))[:1, :FIRST_TOKENS]
    check_tokens(tokens, 0, model.cfg.n_ctx, model.cfg.d_vocab)
    return tokens


def corrupted_of(request: Request, model: HookedModel, models: Sequence[HookedModel]) -> Inputs:
    """The corrupted prompt in the tokens of one model; errors as for :func:`prompt_of`.

    Raises:
        ValueError: If there is none.
    """
    text = request.corrupted
    if text is None:
        raise ValueError(
            "there is no corrupted prompt: give one with as many tokens as the prompt."
        )
    if model.tokenizer is not None:
        return prompt_of(replace(request, prompt=text, prompt_ids=None), model, models)
    if not all(word.strip().isdecimal() for word in text.split(",")):
        raise ValueError(f"the model has no tokenizer: give token ids, 5,17,9, not {text!r}.")
    ids = tuple(map(int, text.split(",")))
    return prompt_of(replace(request, prompt=None, prompt_ids=ids), model, models)


_TEXT = ("dataset", "dataset_config", "split", "column", "sequences", "context")
"""What defines a text, besides its files."""

_IMAGES = ("images", "resize")
"""What defines a set of images, besides their files."""


def text_only(request: Request) -> Request:
    """What a request says about its text, or its images, and nothing else."""
    return Request(**{name: getattr(request, name) for name in ("text", *_TEXT, *_IMAGES)})


def text_digest(request: Request) -> str:
    """sha256 over everything that defines the text of a request, before it becomes tokens."""
    values: dict[str, Any] = {name: getattr(request, name) for name in _TEXT}
    if request.images is not None:
        values |= {name: getattr(request, name) for name in _IMAGES}
        values["image_files"] = image_files(request)
    if request.dataset is None:
        # A missing text is not the bundled one.
        bundled = request.text is None
        values["files"] = known_sha256(BUNDLED_PACK) if bundled else text_files(request)
    return hashlib.sha256(canonical(values).encode()).hexdigest()


def text_files(request: Request) -> dict[str, str]:
    """The files that a request reads, each with its sha256; none for a text of another kind.

    A file that is missing is left out, and so is what :func:`folder_batches` leaves out. Images are
    files too.
    """
    if request.text is None:
        return image_files(request)
    path = Path(request.text)
    files = text_files_of(path).files if path.is_dir() else (path,)
    return {str(each): known_sha256(each) for each in files if each.is_file()}


def tokenizer_digest(tokenizer: Any) -> str | None:
    """sha256 over what a tokenizer does, or ``None`` for no tokenizer."""
    if tokenizer is None:
        return None
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = canonical(tokenizer.get_vocab()) if backend is None else backend.to_str()
    return hashlib.sha256(text.encode()).hexdigest()
