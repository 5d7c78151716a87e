"""What a model is made of and what its layers say: description, feature maps, patches, concepts."""

from kvis2.inspection.concepts import Concepts, craft
from kvis2.inspection.description import Description, Map, describe
from kvis2.inspection.feature_maps import activations
from kvis2.inspection.filters import kernel_sheet, kernels, planes
from kvis2.inspection.patches import receptive_field, top_patches

__all__ = [
    "Concepts",
    "Description",
    "Map",
    "activations",
    "craft",
    "describe",
    "kernel_sheet",
    "kernels",
    "planes",
    "receptive_field",
    "top_patches",
]
