"""What a model is, in numbers: for ``mudd-interp inspect``."""

import json
from collections import Counter
from functools import cache
from typing import Any

from rich.console import Console
from rich.table import Table

from mudd_interp.axes import STREAM_NAMES
from mudd_interp.checkpoints.names import BUNDLED, BUNDLED_FOLDER
from mudd_interp.protocol import HookedModel

PARTS = {
    "embed": "embedding",
    "attn": "attention",
    "mlp": "FFN",
    "dense": "dense connections",
    "dense_pre_norms": "dense connections",
    "unembed": "unembedding",
}


def part_of(name: str) -> str:
    """Which part of a model a parameter belongs to, by its name."""
    words = name.split(".")
    return next((PARTS[word] for word in words if word in PARTS), "norms")


def parameters_by_part(model: HookedModel) -> dict[str, int]:
    """How many parameters each part of a model has; shared ones count once."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[part_of(name)] += parameter.numel()
    return {
        part: counts[part] for part in [*dict.fromkeys(PARTS.values()), "norms"] if counts[part]
    }


def describe_model(model: HookedModel) -> dict[str, Any]:
    """A JSON-ready description: origin, shape, parameters by part, streams, checks at load."""
    cfg, parts = model.cfg, parameters_by_part(model)
    names = ("n_layers", "d_model", "n_heads", "n_key_value_heads", "d_head", "n_ctx", "d_vocab")
    return {
        "name": model.info.name,
        "revision": model.info.revision,
        "digest": model.info.digest,
        "dtype": str(cfg.dtype).removeprefix("torch."),
        "device": str(cfg.device),
        "tokenizer": None if model.tokenizer is None else len(model.tokenizer.get_vocab()),
        "shape": {name: getattr(cfg, name) for name in names} | {"d_mlp": cfg.d_mlp},
        "dense": cfg.dense,
        "streams": [STREAM_NAMES[stream] for stream in model.streams],
        "hooks": len(model.hook_dict),
        "parameters": parts | {"total": sum(parts.values())},
        "training": training_facts(model.info.name),
        "checks": list(model.info.checks),
    }


def training_facts(name: str) -> dict[str, str]:
    """Data, tokens and held-out loss of a bundled model, from its card; nothing of another."""
    if name not in BUNDLED:
        return {}
    card = _card()
    held_out = card["validation"]
    return {
        "data": f"Python sources of {len(card['packages'])} packages",
        "training tokens": f"{card['tokens']:,}",
        "held-out loss": f"{card['models'][name]['validation_loss']:.4f} nats per token "
        f"({held_out['predicted_tokens']:,} tokens of {held_out['files']} files)",
    }


@cache
def _card() -> dict[str, Any]:
    return json.loads((BUNDLED_FOLDER / "card.json").read_text("utf-8"))


def print_description(description: dict[str, Any], console: Console | None = None) -> None:
    """Print what :func:`describe_model` found."""
    console = console or Console(soft_wrap=True)
    console.print(f"[bold]{description['name']}[/bold]", highlight=False)
    console.print(_pairs(description))
    console.print(_parameters(description["parameters"]))
    for check in description["checks"]:
        console.print(f"  checked: {check}", highlight=False, markup=False)


def _pairs(description: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
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


def _parameters(parts: dict[str, int]) -> Table:
    table = Table("part", "parameters", "share")
    for column in table.columns[1:]:
        column.justify = "right"
    for part, count in parts.items():
        table.add_row(part, f"{count:,}", f"{count / parts['total']:.2%}")
    return table
