"""The Hugging Face hub: files of a repository, through its own client and cache.

Only configurations, tokenizers and weights are asked for, never code.
"""

from pathlib import Path

from mudd_interp.checkpoints.weight_files import has_weights

SMALL = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    # Older kinds of tokenizer files, which a bridged model may have.
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
TORCH = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def fetch_small(repository: str, revision: str | None, local_files_only: bool) -> Path:
    """The folder, in the cache, of a repository's configuration and tokenizer.

    Raises:
        ValueError: If there is no such repository, or it cannot be reached and is not cached.
    """
    return _fetch(repository, SMALL, revision, local_files_only)


def fetch_weights(repository: str, commit: str, local_files_only: bool) -> Path:
    """The same folder with weights: safetensors or, where there are none, torch files.

    Raises:
        ValueError: If the repository has no weights, or they cannot be had.
    """
    for patterns in (SAFETENSORS, TORCH):
        folder = _fetch(repository, (*SMALL, *patterns), commit, local_files_only)
        if has_weights(folder):
            return folder
    raise ValueError(
        f"{repository} has no weights in the hub's cache ({folder}), and they could not be "
        f"downloaded. {_by_hand(repository)}"
    )


def _fetch(
    repository: str, patterns: tuple[str, ...], revision: str | None, local_files_only: bool
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        HTTPError,  # pyright: ignore[reportPrivateImportUsage]  (httpx's or httpx2's)
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(patterns),
            local_files_only=local_files_only,
        )
    except GatedRepoError as error:
        raise ValueError(
            f"{repository} is gated: accept its terms on https://huggingface.co/{repository}, "
            "then `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(
            f"{repository} has no revision {revision!r}: expected a branch, tag or commit of it."
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ValueError(
            f"there is no folder and no hub repository {repository!r} (or it is private): check "
            "the name, or give the path of a folder."
        ) from error
    except (OSError, HTTPError) as error:
        why = (
            "local_files_only is set" if local_files_only else f"the hub cannot be reached: {error}"
        )
        raise ValueError(
            f"{repository} is not in the hub's cache, and {why.splitlines()[0]}. "
            f"{_by_hand(repository)}"
        ) from error
    return Path(folder)


def _by_hand(repository: str) -> str:
    return (
        f"On a machine with network, `hf download {repository} --local-dir FOLDER` (or save "
        f"config.json, tokenizer.json and the weights from https://huggingface.co/{repository}); "
        "then copy FOLDER here and load_model('FOLDER')."
    )
