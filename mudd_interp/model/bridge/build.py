"""A TransformerBridge around a Hugging Face model.

The package ``transformer_lens.model_bridge`` takes seconds to import, so it is imported in the
function that needs it.
"""

from typing import Any


def build_bridge(module: Any, tokenizer: Any = None, name: str = "a module in memory") -> Any:
    """A TransformerBridge around a Hugging Face model in evaluation mode, with eager attention.

    Raises:
        ValueError: If the bridge does not know the architecture.
    """
    from copy import deepcopy

    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.utilities.attn_implementation import force_eager_attention

    architecture = type(module).__name__
    if not hasattr(module, "config"):
        raise ValueError(f"expected a Hugging Face model with a config, got a {architecture}.")
    force_eager_attention(module)
    try:
        return build_bridge_from_module(
            module.eval(),
            architecture,
            hf_config=module.config,
            tokenizer=deepcopy(tokenizer),
            model_name=name,
        )
    except ValueError as error:
        raise ValueError(
            f"{architecture} cannot be bridged: TransformerBridge does not take it ({error})."
        ) from error
