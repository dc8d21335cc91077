"""Any Transformer that TransformerBridge boots, behind the same names as our model."""

from mudd_interp.model.bridge.bridged import BridgeModel
from mudd_interp.model.bridge.build import build_bridge

__all__ = ["BridgeModel", "build_bridge"]
