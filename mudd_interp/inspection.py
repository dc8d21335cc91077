"""What a model is, in numbers: for ``mudd-interp inspect``."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn

from mudd_interp.axes import STREAM_NAMES
from mudd_interp.checkpoints.names import BUNDLED, BUNDLED_FOLDER
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.model.bridge.parameters import placed_parameters
from mudd_interp.model.core import HookedCore
from mudd_interp.protocol import HookedModel

PARTS = {
    "embedding": r"(\w+_)?embed",
    "attention": r"(\w+_)?attn",
    "FFN": r"(\w+_)?(mlp|experts?|router)",
    "dense connections": (
        r"dense(_pre_norms)?|hyper|scalars|attnres|(attn|ffn)_hc|hc_head|altup(_\w+)?"
    ),
    "unembedding": "unembed|lm_head",
    "norms": r"(\w+_)?ln(\d|_\w+)*|\w*norm\w*",
}
"""What a place in a model is called, by the first of its words that is the name of a part: the
norms of queries and keys belong to attention, those of the dense weights to these."""

CLASSES = {"norms": r".*Norm", "embedding": r".*Embedding"}
"""The same by the class of a module, for whatever the place does not name."""

OTHER = "other"


def part_of(place: str, module: nn.Module) -> str:
    """Which part of a model a parameter belongs to, by where it stands and what holds it."""
    words = [(part, word) for word in place.split(".") for part in PARTS]
    named = (part for part, word in words if re.fullmatch(PARTS[part], word))
    kind = type(module).__name__
    return next(named, next((part for part in CLASSES if re.fullmatch(CLASSES[part], kind)), OTHER))


def _placed(model: HookedModel) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Every parameter at every place where it stands: the place, the module, the parameter."""
    if isinstance(model, BridgeModel):
        yield from placed_parameters(model.bridge)
        return
    for place, module in cast(HookedCore, model).named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{place}.{name}", module, parameter


def parameters_by_part(model: HookedModel) -> tuple[dict[str, int], dict[str, str]]:
    """How many parameters each part of a model has, and which parts share weights.

    Each parameter counts once: for the first of :data:`PARTS` that it stands in. What belongs to
    none of them is ``other``.

    Returns:
        The counts by part; and for each part with weights that are counted elsewhere, where.
    """
    order = [*PARTS, OTHER]
    owners, sizes, tied = dict[int, str](), dict[int, int](), dict[str, str]()
    found = [(part_of(place, module), parameter) for place, module, parameter in _placed(model)]
    for part, parameter in sorted(found, key=lambda each: order.index(each[0])):
        owner = owners.setdefault(id(parameter), part)
        sizes[id(parameter)] = parameter.numel()
        if owner != part:
            tied[part] = owner
    counts: Counter[str] = Counter()
    for key, part in owners.items():
        counts[part] += sizes[key]
    return {part: counts[part] for part in order if counts[part]}, tied


def describe_model(model: HookedModel) -> dict[str, Any]:
    """A JSON-ready description: origin, shape, parameters by part, streams, checks at load."""
    cfg, (parts, tied) = cast(HookedCore, model).cfg, parameters_by_part(model)
    return {
        "name": model.info.name,
        "revision": model.info.revision,
        "digest": model.info.digest,
        "dtype": str(cfg.dtype).removeprefix("torch."),
        "device": str(cfg.device),
        "tokenizer": None if model.tokenizer is None else len(model.tokenizer.get_vocab()),
        "shape": shape_of(model),
        "dense": _dense(model),
        "streams": [STREAM_NAMES[stream] for stream in model.wiring.streams],
        "hooks": len(model.hook_dict),
        "parameters": parts | {"total": sum(parts.values())},
        "tied": tied,
        "training": training_facts(model.info.name),
        "checks": list(model.info.checks),
    }


def _dense(model: HookedModel) -> str:
    """Whether the model has dense connections, and of which kind."""
    if model.wiring.additive:
        return "none"
    return "static" if model.wiring.gates == "static" else "dynamic"


SHAPE = (
    "n_layers",
    "d_model",
    "n_heads",
    "n_key_value_heads",
    "d_head",
    "n_ctx",
    "d_vocab",
    "d_mlp",
)


def shape_of(model: HookedModel) -> dict[str, int | tuple[int, ...]]:
    """Sizes of a model, by layer where they differ; what it does not have is left out."""
    sizes = {name: getattr(model.cfg, name) for name in SHAPE}
    if isinstance(model, BridgeModel):
        sizes |= model.cfg.measured
    return {name: size for name, size in sizes.items() if size is not None}


def training_facts(name: str) -> dict[str, str]:
    """Data, tokens and held-out loss of a bundled model, from its card; nothing for any other."""
    if name not in BUNDLED:
        return {}
    card = _card("card.json")
    if name not in card["models"]:
        return _vision_facts(name, _card("vit-card.json"))
    held_out = card["validation"]
    return {
        "data": f"Python sources of {len(card['packages'])} packages",
        "training tokens": f"{card['tokens']:,}",
        "held-out loss": f"{card['models'][name]['validation_loss']:.4f} nats per token "
        f"({held_out['predicted_tokens']:,} tokens of {held_out['files']} files)",
    }


def _vision_facts(name: str, card: dict[str, Any]) -> dict[str, str]:
    stored, images = card["stored"][name], card["images"]
    return {
        "data": f"{images['train']:,} images of Fashion-MNIST",
        "training images": f"{card['recipe']['steps'] * card['recipe']['batch']:,}",
        "test loss": f"{stored['loss']:.4f} nats per image ({images['test']:,} images)",
        "test accuracy": f"{100 * stored['accuracy']:.2f} %",
    }


@cache
def _card(name: str) -> dict[str, Any]:
    return json.loads((BUNDLED_FOLDER / name).read_text("utf-8"))


def print_description(description: dict[str, Any], console: Console | None = None) -> None:
    """Print what :func:`describe_model` found."""
    console = console or Console(soft_wrap=True)
    console.print(f"[bold]{description['name']}[/bold]", highlight=False)
    console.print(_pairs(description))
    console.print(_parameters(description["parameters"], description["tied"]))
    for check in description["checks"]:
        console.print(f"  checked: {check}", highlight=False, markup=False)


def _pairs(description: dict[str, Any]) -> Table:
    table = Table.grid("", Column(overflow="fold"), padding=(0, 2))
    rows = {
        "revision": description["revision"] or "(local)",
        "digest": description["digest"] or "(random weights)",
        "precision": f"{description['dtype']} on {description['device']}",
        "tokenizer": _tokenizer(description["tokenizer"]),
        **description["shape"],
        "dense weights": description["dense"],
        "input streams": ", ".join(description["streams"]),
        "hooks": description["hooks"],
        **description["training"],
    }
    for name, value in rows.items():
        table.add_row(f"  {name}", str(value))
    return table


def _tokenizer(size: int | None) -> str:
    return "none: token ids only" if size is None else f"{size:,} entries"


def _parameters(parts: dict[str, int], tied: dict[str, str]) -> Table:
    table = Table("part", "parameters", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, count in parts.items():
        if part == "total":
            for shared, owner in tied.items():
                table.add_row(shared, f"tied, counted as {owner}", "")
        table.add_row(part, f"{count:,}", f"{count / parts['total']:.2%}")
    return table
