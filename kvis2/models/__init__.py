"""What is known of a model, and how it is changed for one pass.

Layers and their kinds, feature maps, inputs and tokens; overrides, taps and modifiers that are in
force while one pass is traced. Nothing here runs a model by itself.
"""

from kvis2.models.activations import (
    ActivationKind,
    activation_of,
    buried_activation,
    counted,
    final_activation,
    kind_of_layer,
    kind_of_operation,
    register_activation,
)
from kvis2.models.computation import Computation
from kvis2.models.feature_maps import ancestors, spatial_calls, spatial_sizes
from kvis2.models.folding import FoldBatchNorm, scale_and_shift
from kvis2.models.inputs import Arguments, Batch, specifications
from kvis2.models.layers import (
    CONVOLUTIONS,
    DEPTHWISE,
    LAST_SPATIAL,
    SEPARABLE,
    TRANSPOSED,
    check_built,
    data_format,
    entry_of,
    find_layer,
    flat_outputs,
    input_structure,
    is_affine,
    layer_path,
    output_count,
    output_names,
    output_paths,
    register_affine,
    spatial_axes,
    walk,
)
from kvis2.models.meaning import Meaning, meaning_of
from kvis2.models.modifiers import (
    DeconvReLU,
    GuidedReLU,
    LinearOutput,
    Modifier,
    as_modifiers,
    modified,
)
from kvis2.models.overrides import overriding
from kvis2.models.spaces import axes_between, input_space
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
    "CONVOLUTIONS",
    "DEPTHWISE",
    "LAST_SPATIAL",
    "SEPARABLE",
    "TRANSPOSED",
    "ActivationKind",
    "Arguments",
    "Batch",
    "Call",
    "Computation",
    "DeconvReLU",
    "FoldBatchNorm",
    "GuidedReLU",
    "LinearOutput",
    "Meaning",
    "Modifier",
    "Steps",
    "TokenGrid",
    "activation_of",
    "ancestors",
    "as_modifiers",
    "axes_between",
    "buried_activation",
    "check_built",
    "chosen",
    "counted",
    "data_format",
    "entry_of",
    "final_activation",
    "find_layer",
    "flat_outputs",
    "inlined",
    "input_space",
    "input_structure",
    "is_affine",
    "is_function",
    "joined",
    "kind_of_layer",
    "kind_of_operation",
    "layer_path",
    "meaning_of",
    "modified",
    "output_count",
    "output_names",
    "output_paths",
    "overriding",
    "packed_like",
    "register_activation",
    "register_affine",
    "replacing",
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
