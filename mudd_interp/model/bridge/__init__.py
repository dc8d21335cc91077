"""Baselines: any Transformer that TransformerBridge boots, behind the same names as our model."""

from mudd_interp.model.bridge.baseline import BridgeBaseline
from mudd_interp.model.bridge.build import build_bridge

__all__ = ["BridgeBaseline", "build_bridge"]
