"""What is built: neurons, dendritic dynamics, attention operators and backbones, registered with timm."""

# isort: off
import lrf_models.torchvision_guard  # noqa: F401  (before anything that imports timm)

# isort: on
from collections.abc import Callable
from typing import Any

from lrf_models.backbone import SpikingBackbone
from lrf_models.qkformer import QKFormer
from lrf_models.sdt_v3 import SDTV3
from lrf_models.spikformer import Spikformer
from spaces import config

_BACKBONES: dict[type[config.Model], Callable[[Any], SpikingBackbone]] = {
    config.SpikformerConfig: Spikformer,
    config.QKFormerConfig: QKFormer,
    config.SDTV3Config: SDTV3,
}


def build_model(settings: config.Model) -> SpikingBackbone:
    """The network of a model configuration, with fresh weights from torch's default generator."""
    return _BACKBONES[type(settings)](settings)


__all__ = ["SpikingBackbone", "build_model"]
