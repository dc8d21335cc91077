"""Every parser of bytes from outside, each with valid files to start from, and mutations of them.

A reader may return, or raise ValueError. Whatever else it raises is a fault.
"""

import base64
import gzip
import json
import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save
from safetensors.torch import save_file

from mudd_interp.analysis import Result, open_activations
from mudd_interp.analysis.ablation import AblationSweep
from mudd_interp.analysis.activation_files import _read as read_activation_file
from mudd_interp.analysis.provenance import Provenance
from mudd_interp.analysis.stored_activations import INDEX, Shard, index_text
from mudd_interp.checkpoints.configs import read_config
from mudd_interp.checkpoints.layouts import LAYOUTS
from mudd_interp.checkpoints.own import own_config_text
from mudd_interp.checkpoints.tokenizer import load_tokenizer
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.config import ModelConfig
from mudd_interp.edits import Edit, as_edits, edits_from_json, edits_text, edits_to_json
from mudd_interp.encoding import decode, encode, encode_document, token_ids, token_text
from mudd_interp.figures import FORMAT, read_manifest
from mudd_interp.files import parse_json, read_object, sealed
from mudd_interp.files.staging import REPLACES
from mudd_interp.files.staging import _replaced as read_replaced
from mudd_interp.images import read_images
from mudd_interp.panics import is_failure
from mudd_interp.request import Request
from mudd_interp.training.checkpoint import State, read_state, write_state
from mudd_interp.training.log import LogRow, add_to_log, trim_log
from mudd_interp.training.packing import STAMP, is_prepared, load_stream, stamp
from mudd_interp.training.validation import load_pack
from tests.hostile_results import KINDS, use, with_other_arrays, write

from shelf import Entry, _read as read_entry  # isort: skip
from state import DIGESTED, FIELDS, decode as decode_link, encode as encode_link  # isort: skip

import mudd_interp

SOURCE = Provenance(
    model="made",
    revision=None,
    digest="0" * 64,
    dtype="float32",
    data=("a text",),
    sequences=2,
    tokens=6,
    token_digest="1" * 64,
    options={"edits": ["cut v 1<-0"], "pair": None},
    version=mudd_interp.__version__,
)
CONFIG = ModelConfig(n_layers=2, d_model=8, n_heads=2, d_vocab=11, d_mlp=16)
RELEASED = {"model_type": "muddpythia", "vocab_size": 11, "n_layer": 2, "n_head": 2, "dim": 8}
RELEASED_MORE = {"rotary_pct": 0.5, "intermediate_size": 256, "rope_base": 10000, "norm_eps": 1e-6}


@dataclass(frozen=True)
class Reader:
    """One parser.

    Attributes:
        name: The name of the file that is mutated.
        read: Reads the folder that the file is in.
        write: Writes a valid file, and what it needs beside it.
        is_json: Whether values can be put into it; else bytes only.
    """

    name: str
    read: Callable[[Path], object]
    write: Callable[[Path], object]
    is_json: bool = True


def _text(name: str, values: object) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(values))


def _results(folder: Path) -> None:
    counts = np.full(2, 3)
    numbers = np.ones((1, 2))
    AblationSweep(
        provenance=SOURCE,
        streams=("q", "k", "v", "r"),
        loss_sum=np.ones(2),
        loss_change=numbers,
        kl_sum=numbers,
        logit_change=numbers,
        predicted=counts,
        positions=counts,
        compared=counts,
    ).save(folder / "r.safetensors")


def _entry(folder: Path) -> None:
    entry = Entry(
        name=folder.name,
        link={"n": "2"},
        models=["made"],
        text="a text",
        sequences=2,
        tokens=6,
        passes=["model"],
        when="2026-01-01",
        files={"0" * 64: "1" * 64},
        n_bytes=9,
    )
    values = {"format": "mudd-interp run 1", "version": mudd_interp.__version__, **asdict(entry)}
    (folder / "entry.json").write_text(json.dumps(sealed(values)))


def _manifest(folder: Path) -> None:
    values = {
        "format": FORMAT,
        "request": asdict(Request()),
        "texts": {"a": "0" * 64},
        "figures_asked": ["layer_similarity"],
        "formats_asked": [],
        "model": SOURCE.to_dict(),
    }
    (folder / "manifest.json").write_text(json.dumps(values))


def _state(folder: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    state = State(
        model=dict(model.state_dict()),
        optimizer=optimizer.state_dict(),
        step=3,
        rng=torch.get_rng_state(),
        recipe={"steps": 5},
    )
    write_state(state, folder / "checkpoint.pt")


def _activations(folder: Path) -> None:
    text = index_text(SOURCE, {"blocks.0.hook_out": 4}, [Shard(6, "0" * 64)])
    (folder / INDEX).write_text(text)


def _activation_file(folder: Path) -> None:
    labels = {name: torch.arange(3).int() for name in ("sequence", "position", "token")}
    header = json.dumps(SOURCE.to_dict())
    save_file(labels, folder / "0.safetensors", {"mudd_interp": header})


def _index(folder: Path) -> None:
    save_file({"a": torch.ones(2)}, folder / "m-1.safetensors")
    _text("model.safetensors.index.json", {"weight_map": {"a": "m-1.safetensors"}})(folder)


def _tokenizer(folder: Path) -> None:
    from mudd_interp.checkpoints.names import BUNDLED_FOLDER

    if not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").symlink_to(BUNDLED_FOLDER / "tokenizer.json")


def _special(name: str, values: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        _tokenizer(folder)
        _text(name, values)(folder)

    return write


def _pack(folder: Path) -> None:
    arrays = {
        "tokens": np.ones((2, 3), np.int16),
        "file": np.zeros(2, int),
        "offset": np.ones(2, int),
    }
    names = json.dumps([["a", "1", "a.py"]])
    (folder / "p.safetensors").write_bytes(save(arrays, metadata={"files": names}))


IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def _idx(folder: Path, name: str = "images", pack: Callable[[bytes], bytes] = bytes) -> None:
    lengths = b"".join(length.to_bytes(4, "big") for length in IMAGES.shape)
    (folder / name).write_bytes(pack(b"\0\0\x08\x03" + lengths + IMAGES.tobytes()))


def _picture(folder: Path, name: str) -> None:
    Image.fromarray(IMAGES[0]).resize((32, 32)).convert("RGB").save(folder / name)


def _image_arrays(folder: Path) -> None:
    arrays = {"images": IMAGES, "labels": np.ones(2, int)}
    (folder / "i.safetensors").write_bytes(save(arrays, {"class_names": json.dumps(["a", "b"])}))


def _image_reader(name: str, write: Callable[[Path], object]) -> Reader:
    return Reader(name, lambda d: read_images(d / name, fitted=(4, 3)), write, False)


def _log(folder: Path) -> None:
    (folder / "log.csv").unlink(missing_ok=True)
    for step in (1, 2):
        add_to_log(folder / "log.csv", LogRow(step, step * 4, 1.5, 0.1, 1.0, 99.0, None), "tokens")


def _load_result(folder: Path) -> object:
    found = Result.load(folder / "r.safetensors")
    return found.frame


def _config_of(folder: Path) -> ModelConfig:
    config = read_config(folder)
    layout = LAYOUTS.get(config["model_type"])
    return CONFIG if layout is None else layout.config(config, list)


def _write_own(folder: Path) -> None:
    (folder / "config.json").write_text(own_config_text(CONFIG))


def _write_released(folder: Path) -> None:
    _text("config.json", RELEASED | RELEASED_MORE)(folder)


def _read_edits(folder: Path) -> None:
    edits = edits_from_json((folder / "e.json").read_bytes().decode("utf-8"))
    assert edits_from_json(edits_to_json(edits)) == edits
    assert all(Edit.parse(str(edit)) == edit for edit in edits)


TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {
            "id": 0,
            "content": "<|endoftext|>",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": {"type": "Replace", "pattern": {"String": "x"}, "content": "a"},
    "pre_tokenizer": {
        "type": "Split",
        "pattern": {"Regex": " ?[a-z]+|."},
        "behavior": "Isolated",
        "invert": False,
    },
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {},
    },
    "decoder": {"type": "BPEDecoder", "suffix": "</w>"},
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "<|endoftext|>",
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, " ": 3, "ab": 4, " ab": 5},
        "merges": [["a", "b"], [" ", "ab"]],
    },
}
"""A ``tokenizer.json`` with a part of each kind."""


def _use_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    for text in ("ab ab b", "<|endoftext|>é", " " * 99):
        decode(tokenizer, encode(tokenizer, text))
        list(encode_document(tokenizer, [text]))
    for index in token_ids(tokenizer, 100):
        token_text(tokenizer, index)


def _stream(folder: Path) -> None:
    np.save(folder / "train.npy", np.arange(32, dtype=np.uint16))
    np.save(folder / "validation.npy", np.arange(9, dtype=np.uint16))


def _stamp(folder: Path) -> None:
    _stream(folder)
    _text(STAMP, stamp(folder))(folder)


VIEW = {"prompt": "a b", "layer": 3, "sinks": (1, 2), "edits": "cut v 5<-2 @0,4-7", "answer": "x"}


def _open_link(folder: Path) -> None:
    query = (folder / "link").read_bytes().decode("utf-8", "replace")
    opened = decode_link(dict(parse_qsl(query, keep_blank_values=True)))
    named = {field.name for field in fields(Request)}
    Request(**{name: value for name, value in opened.view.items() if name in named})
    again = decode_link(encode_link(opened.view))
    assert again.digests or (again.view, again.notices) == (opened.view, ())


def _write_link(folder: Path) -> None:
    view = decode_link({}).view | VIEW
    (folder / "link").write_text(urlencode(encode_link(view)))


def _read_edit_text(folder: Path) -> None:
    edits = as_edits((folder / "e.txt").read_bytes().decode("utf-8"))
    assert as_edits(edits_text(edits)) == edits == edits_from_json(edits_to_json(edits))


def _ask(folder: Path) -> None:
    request = Request.of_values(read_object(folder / "request.json"))
    assert Request.of_values(json.loads(json.dumps(asdict(request)))) == request


def _result(name: str) -> Reader:
    path = "r.safetensors"
    return Reader(path, lambda d: use(d / path), lambda d: write(name, SOURCE, d / path), False)


READERS = {
    "edits": Reader(
        "e.json",
        _read_edits,
        _text("e.json", [{"action": "cut", "stream": "v", "layer": 3, "positions": [0, 4]}]),
    ),
    "manifest": Reader("manifest.json", lambda d: read_manifest(d / "manifest.json"), _manifest),
    "kept run": Reader("entry.json", read_entry, _entry),
    "activations": Reader(INDEX, open_activations, _activations),
    "own configuration": Reader("config.json", _config_of, _write_own),
    "released configuration": Reader("config.json", _config_of, _write_released),
    "weight index": Reader("model.safetensors.index.json", open_weights, _index),
    "tokenizer_config": Reader(
        "tokenizer_config.json",
        lambda d: load_tokenizer(d / "tokenizer.json"),
        _special(
            "tokenizer_config.json",
            {
                "eos_token": "<|endoftext|>",
                "model_max_length": 10**30,
                "padding_side": "left",
                "added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}},
                "additional_special_tokens": ["<|endoftext|>"],
            },
        ),
    ),
    "added_tokens": Reader(
        "added_tokens.json",
        lambda d: load_tokenizer(d / "tokenizer.json"),
        _special("added_tokens.json", {"<|endoftext|>": 0}),
    ),
    "provenance": Reader(
        "p.json",
        lambda d: Provenance.from_dict(parse_json((d / "p.json").read_bytes(), "p")),
        _text("p.json", SOURCE.to_dict()),
    ),
    "result": Reader("r.safetensors", _load_result, _results, False),
    "activation file": Reader(
        "0.safetensors",
        lambda d: read_activation_file(d / "0.safetensors"),
        _activation_file,
        False,
    ),
    "training state": Reader(
        "checkpoint.pt", lambda d: read_state(d / "checkpoint.pt"), _state, False
    ),
    "weights": Reader(
        "model.safetensors",
        open_weights,
        lambda d: save_file({"a": torch.ones(2)}, d / "model.safetensors"),
        False,
    ),
    "torch weights": Reader(
        "pytorch_model.bin",
        open_weights,
        lambda d: torch.save({"a": torch.ones(2)}, d / "pytorch_model.bin"),
        False,
    ),
    "validation pack": Reader(
        "p.safetensors", lambda d: load_pack(d / "p.safetensors"), _pack, False
    ),
    "idx images": _image_reader("images", _idx),
    "packed idx images": _image_reader("i.gz", lambda d: _idx(d, "i.gz", gzip.compress)),
    "images in npz": _image_reader(
        "i.npz", lambda d: np.savez(d / "i.npz", images=IMAGES, class_names=["a"])
    ),
    "images in safetensors": _image_reader("i.safetensors", _image_arrays),
    "png": _image_reader("i.png", lambda d: _picture(d, "i.png")),
    "jpeg": _image_reader("i.jpg", lambda d: _picture(d, "i.jpg")),
    "training log": Reader("log.csv", lambda d: trim_log(d / "log.csv", 1, "tokens"), _log, False),
    "stream": Reader("train.npy", lambda d: load_stream(d, "train"), _stream, False),
    "stamp": Reader(STAMP, is_prepared, _stamp),
    "list of what is replaced": Reader(
        REPLACES, lambda d: read_replaced(d / REPLACES), _text(REPLACES, ["config.json"])
    ),
    "link": Reader("link", _open_link, _write_link, False),
    "edit text": Reader(
        "e.txt",
        _read_edit_text,
        lambda d: (d / "e.txt").write_text("cut v 5<-2 @0,4-7; cut head 3.1; mean * *<-0"),
        False,
    ),
    "request": Reader("request.json", _ask, _text("request.json", asdict(Request(sinks=(1,))))),
    "tokenizer": Reader("tokenizer.json", _use_tokenizer, _text("tokenizer.json", TOKENIZER)),
    "special_tokens_map": Reader(
        "special_tokens_map.json",
        _use_tokenizer,
        _special("special_tokens_map.json", {"eos_token": {"content": "<|endoftext|>"}}),
    ),
    "chat template": Reader(
        "chat_template.jinja",
        _use_tokenizer,
        _special("chat_template.jinja", "{{ messages }}"),
        False,
    ),
    **{name: _result(name) for name in KINDS},
}

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 10**20, 10**400, 2**31, 2**63, 1.5, 1e300),
    *("", "x", "\0", "\ud800", "../x"),
    *([], {}, [[]], [1, "a"], {"a": []}, [True], ["q", "q"]),
)
"""Values to put where others belong."""

WHOLE = (
    *(b"", b"null", b"[]", b"{}", b"true", b"NaN", b"[Infinity]", b"1e999", b"9" * 5000),
    *(b"[" * 100_000, b'{"a":' * 100_000, b'{"a": 1, "a": 2}', b"\xff\xfe", b"PK\x03\x04"),
    b"\xef\xbb\xbf{}",
)
"""Whole files."""


def mutated(reader: Reader, data: bytes, rng: random.Random) -> bytes:
    """A file that was damaged, forged, or is of another kind."""
    way = rng.randrange(6)
    if way == 0:
        return rng.choice(WHOLE)
    if way == 1:
        return rng.randbytes(rng.randrange(200))
    if way in (2, 3) and reader.is_json:
        return json.dumps(_changed(json.loads(data), rng)).encode("utf-8", "surrogatepass")
    if way in (2, 3) and reader.name.endswith(".safetensors"):
        return _forged(data, rng) if way == 2 else with_other_arrays(data, rng)
    if way in (2, 3) and reader.name == "link":
        return _other_link(rng)
    return _damaged(bytearray(data), rng)


def _other_link(rng: random.Random) -> bytes:
    """A query with values that belong to other keys, or nowhere, or are packed bombs."""
    packed = base64.urlsafe_b64encode(zlib.compress(b"a" * 10**6)).decode()
    values = [*map(str, STRANGE), "none", "1.2.3", "all", "prompt", packed, "cut v 0-9<-0-9"]
    values += ["cut v 1<-0 @0-999999;" * 40, "cut v 1<-0;" * 5000, "1." * 5000, "%00", "٣"]
    keys = [*(field.key for field in FIELDS.values()), *DIGESTED, "x", ""]
    pairs = [(rng.choice(keys), rng.choice(values)) for _ in range(rng.randrange(80))]
    return urlencode(pairs, errors="surrogatepass").encode()


def _damaged(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(data) or 1)
        match rng.randrange(4):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = rng.randbytes(1)
            case 2:
                del data[at : at + rng.randrange(1, 9)]
            case _:
                data[at:at] = data[at : at + rng.randrange(1, 40)]
    return bytes(data)


def _changed(values: Any, rng: random.Random) -> Any:
    """JSON with one value, at any depth, that is missing, new or different."""
    values = json.loads(json.dumps(values))
    if isinstance(values, dict) and "sha256" in values and rng.random() < 0.9:
        del values["sha256"]  # a forger leaves it out
    places = list(_places(values))
    if not places or rng.random() < 0.05:
        return rng.choice(STRANGE)
    holder, key = rng.choice(places)
    match rng.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(["x", "", "sha256", "model"])] = rng.choice(STRANGE)
        case _:
            holder[key] = rng.choice(STRANGE)
    return values


def _places(values: Any) -> Iterator[tuple[Any, Any]]:
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in list(inner):
        yield values, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _forged(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose own text, in the header, says something else."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    meta = header.get("__metadata__") or {}
    for name in meta:
        meta[name] = json.dumps(_changed(json.loads(meta[name]), rng))
    if not meta or rng.random() < 0.3:
        holder = header[rng.choice([name for name in header if name != "__metadata__"])]
        holder[rng.choice(["dtype", "shape"])] = rng.choice(
            ["F32", "I64", "F64", "BF16", "BOOL", "F8_E4M3", [2], [1, 2], [-1], 5]
        )
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def attempt(reader: Reader, folder: Path, data: bytes) -> str:
    """What a reader makes of bytes: "read", "refused", or the fault."""
    (folder / reader.name).write_bytes(data)
    try:
        reader.read(folder)
    except ValueError:
        return "refused"
    except BaseException as error:  # what must not happen, a library's panic included
        if not is_failure(error):
            raise
        return f"{type(error).__name__}: {error}"
    return "read"
