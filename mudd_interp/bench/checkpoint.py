"""A checkpoint in the released layout with random weights, in shards."""

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from mudd_interp.bench.sizes import Size, checkpoint_config
from mudd_interp.checkpoints.layout import StoredWeight
from mudd_interp.checkpoints.released import released_layout
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer

SHARDS = 4
INDEX = "model.safetensors.index.json"


def write_checkpoint(size: Size, folder: Path) -> None:
    """Write ``config.json``, shards in bfloat16 and their index into a folder."""
    config = checkpoint_config(size)
    cfg = ModelConfig.from_released(config)
    with torch.device("meta"):
        model = HookedMUDDTransformer(cfg)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    sources = list(released_layout(cfg, shapes, ()).values())
    torch.manual_seed(0)
    places: dict[str, str] = {}
    for number in range(SHARDS):
        file = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        shard: dict[str, Tensor] = {
            source.name: _random(source) for source in sources[number::SHARDS]
        }
        save_file(shard, folder / file)
        places |= dict.fromkeys(shard, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps(config))


def _random(source: StoredWeight) -> Float[Tensor, "*stored"]:
    """Weights that change what they touch: gains near one, matrices as a trained model's."""
    noise = 0.02 * torch.randn(source.shape, dtype=torch.bfloat16)
    is_gain = "norm" in source.name and source.name.endswith(".weight")
    return 1 + noise if is_gain else noise
