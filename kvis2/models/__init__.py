"""What is known of a model, and how it is changed for one pass.

Layers and their kinds, feature maps, inputs and tokens; overrides, taps and modifiers that are in
force while one pass is traced. Nothing here runs a model by itself.
"""

from kvis2.models.activations import before_activation, counted, final_activation, responses
from kvis2.models.feature_maps import ancestors, spatial_calls, spatial_sizes
from kvis2.models.folding import FoldBatchNorm, scale_and_shift
from kvis2.models.inputs import Batch, open_axes, specifications
from kvis2.models.layers import (
    LAST_SPATIAL,
    check_built,
    data_format,
    find_layer,
    input_structure,
    layer_path,
    output_count,
    output_names,
    spatial_axes,
    walk,
)
from kvis2.models.modifiers import (
    DeconvReLU,
    GuidedReLU,
    LinearOutput,
    Modifier,
    as_modifiers,
    modified,
)
from kvis2.models.overrides import overriding
from kvis2.models.taps import (
    Call,
    Steps,
    chosen,
    inlined,
    is_function,
    joined,
    packed_like,
    replacing,
    tap,
    tensors_of,
)
from kvis2.models.tokens import TokenGrid, token_grid

__all__ = [
    "LAST_SPATIAL",
    "Batch",
    "Call",
    "DeconvReLU",
    "FoldBatchNorm",
    "GuidedReLU",
    "LinearOutput",
    "Modifier",
    "Steps",
    "TokenGrid",
    "ancestors",
    "as_modifiers",
    "before_activation",
    "check_built",
    "chosen",
    "counted",
    "data_format",
    "final_activation",
    "find_layer",
    "inlined",
    "input_structure",
    "is_function",
    "joined",
    "layer_path",
    "modified",
    "open_axes",
    "output_count",
    "output_names",
    "overriding",
    "packed_like",
    "replacing",
    "responses",
    "scale_and_shift",
    "spatial_axes",
    "spatial_calls",
    "spatial_sizes",
    "specifications",
    "tap",
    "tensors_of",
    "token_grid",
    "walk",
]
