"""Published architectures by package and name, small and with random weights.

Each is the architecture that its package publishes, with fewer blocks or channels where the package
lets one say so. Every weight is drawn, also those that start as zeros and ones: else a residual
branch would be nothing, and a batch normalisation the identity.
"""

import functools
import importlib

import keras
import numpy as np
import pytest

CLASSES = 5
APPLICATIONS = [
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionResNetV2"),
    *("InceptionV3", "MobileNet", "MobileNetV2", "MobileNetV3Small", "NASNetMobile", "ResNet50"),
    *("ResNet50V2", "VGG16", "Xception"),
]
KIMM = [
    *("ConvMixer736D32", "ConvNeXtAtto", "DenseNet121", "EfficientNetB0", "EfficientNetLiteB0"),
    *("EfficientNetV2B0", "GhostNetW050", "GhostNetV2W100", "GhostNetV3W050", "HGNetTiny"),
    *("HGNetV2B0", "InceptionNeXtTiny", "InceptionV3", "LCNet035", "MobileNetV2W050"),
    *("MobileNetV3W050Small", "MobileOneS0", "MobileViTXXS", "MobileViTV2W050", "RegNetX002"),
    *("RegNetY002", "RepVGGA0", "ResNet18", "TinyNetE", "VGG11", "VisionTransformerTiny32"),
    "Xception",
]
_SMALL = {"image_size": 64, "num_classes": CLASSES}
_TINY_VIT = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2, **_SMALL}
_STAGES = {"depths": (1, 1, 2, 1), **_SMALL}
ZEROMODELS = {
    "BeitImageClassify": {
        **{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 64, **_SMALL},
    },
    "CaiTImageClassify": {**_TINY_VIT},
    "ConvMixerImageClassify": {"embed_dim": 32, "depth": 3, **_SMALL},
    "ConvNeXtImageClassify": {"projection_dim": (8, 16, 24, 32), **_STAGES},
    "ConvNeXtV2ImageClassify": {"projection_dim": (8, 16, 24, 32), **_STAGES},
    "DeiTImageClassify": {"use_distillation": True, **_TINY_VIT},
    "DenseNetImageClassify": {"depths": (2, 2, 2, 2), "growth_rate": 8, **_SMALL},
    "EfficientFormerImageClassify": {"embed_dim": (16, 24, 32, 48), **_STAGES, "image_size": 224},
    "EfficientNetImageClassify": {"width_coefficient": 0.5, **_SMALL},
    "EfficientNetLiteImageClassify": {"width_coefficient": 0.5, **_SMALL},
    "EfficientNetV2ImageClassify": {
        **{"width_coefficient": 0.25, "depth_coefficient": 0.25, "head_filters": 64, **_SMALL},
    },
    "FlexiViTImageClassify": {**_TINY_VIT},
    "InceptionNextImageClassify": {"num_filters": (16, 24, 32, 48), **_STAGES},
    "InceptionResNetV2ImageClassify": {**_SMALL, "image_size": 96},
    "InceptionV3ImageClassify": {**_SMALL, "image_size": 96},
    "InceptionV4ImageClassify": {**_SMALL, "image_size": 96},
    "LevitImageClassify": {
        **{"hidden_sizes": (16, 24, 32), "num_attention_heads": (2, 2, 2), "depths": (1, 1, 1)},
        **{"key_dim": (8, 8, 8), **_SMALL},
    },
    "MLPMixerImageClassify": {"patch_size": 16, "embed_dim": 32, "depths": 2, **_SMALL},
    "MaxViTImageClassify": {
        **{"stem_width": 8, "depths": (1, 1, 1, 1), "embed_dim": (8, 16, 24, 32)},
        **{"num_heads": (1, 2, 2, 2), **_SMALL, "image_size": 224},
    },
    "MiTImageClassify": {"embed_dim": (8, 16, 40, 64), "depths": (1, 1, 1, 1), **_SMALL},
    "MobileNetV2ImageClassify": {"width_multiplier": 0.5, **_SMALL},
    "MobileNetV3ImageClassify": {"config": "small", **_SMALL},
    "MobileNetV4ImageClassify": {**_SMALL},
    "MobileViTImageClassify": {**_SMALL},
    "MobileViTV2ImageClassify": {"multiplier": 0.5, **_SMALL},
    "NextViTImageClassify": {"depths": (1, 1, 5, 1), "stem_chs": (16, 8, 16), **_SMALL},
    "PiTImageClassify": {
        **{"embed_dim": (16, 32, 64), "depth": (1, 1, 1), "heads": (2, 2, 2), **_SMALL},
    },
    "PoolFormerImageClassify": {"embed_dim": (8, 16, 24, 32), **_STAGES},
    "PvtImageClassify": {"hidden_sizes": (8, 16, 40, 64), **_STAGES},
    "PvtV2ImageClassify": {"hidden_sizes": (8, 16, 40, 64), **_STAGES},
    "RegNetImageClassify": {
        **{"hidden_sizes": (16, 32, 48, 64), "groups_width": 8, **_STAGES},
    },
    "Res2NetImageClassify": {"depth": (1, 1, 1, 1), **_SMALL},
    "ResMLPImageClassify": {"embed_dim": 32, "depth": 2, **_SMALL},
    "ResNetImageClassify": {"filters": (8, 16, 24, 32), "groups": 1, "width_factor": 1, **_STAGES},
    "ResNetV2ImageClassify": {"filters": (128, 128, 128, 128), "stem_width": 32, **_STAGES},
    "ResNeXtImageClassify": {"depths": (1, 1, 1, 1), **_SMALL},
    "SENetImageClassify": {"filters": (8, 16, 32, 32), "groups": 1, "width_factor": 1, **_STAGES},
    "SwinImageClassify": {
        **{"window_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), **_SMALL},
    },
    "SwinV2ImageClassify": {
        **{"window_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), **_SMALL},
    },
    "VGGImageClassify": {"num_filters": [8, "M", 16, "M", 16, "M"], "batch_norm": True, **_SMALL},
    "ViTImageClassify": {**_TINY_VIT},
    "XceptionImageClassify": {**_SMALL, "image_size": 96},
}
_TEXT = {"vocabulary_size": 30, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
_HEADS = {**_TEXT, "num_heads": 2, "max_sequence_length": 12}
_PICTURE = {"image_shape": (64, 64, 3)}
_VIT = {**_PICTURE, "patch_size": 16, "num_layers": 2, "num_heads": 2, "hidden_dim": 32}
KERAS_HUB = {
    "CSPNet": {
        **{"stem_filters": 8, "stem_kernel_size": 3, "stem_strides": 2, "stackwise_depth": [1, 1]},
        **{"stackwise_strides": [2, 2], "stackwise_num_filters": [16, 32]},
        **{"block_type": "dark_block", "stage_type": "csp", "bottle_ratio": [0.5, 1.0]},
        **{"block_ratio": [1.0, 0.5], "expand_ratio": [2.0, 1.0], "cross_linear": True},
        **_PICTURE,
    },
    "DeiT": {**_VIT, "intermediate_dim": 64},
    "DenseNet": {"stackwise_num_repeats": [2, 2, 2], "growth_rate": 8, **_PICTURE},
    "EfficientNet": {
        **{"stackwise_width_coefficients": [0.5] * 3, "stackwise_depth_coefficients": [1.0] * 3},
        **{"stackwise_kernel_sizes": [3, 3, 5], "stackwise_num_repeats": [1, 2, 1]},
        **{"stackwise_input_filters": [32, 16, 24], "stackwise_output_filters": [16, 24, 40]},
        **{"stackwise_expansion_ratios": [1, 4, 4], "stackwise_strides": [1, 2, 2]},
        **{"stackwise_squeeze_and_excite_ratios": [0.25] * 3},
        **{"stackwise_block_types": ["v1", "v1", "v1"], "input_shape": (64, 64, 3)},
        **{"stackwise_force_input_filters": [0] * 3, "stackwise_nores_option": [False] * 3},
        "num_features": 64,
    },
    "HGNetV2": {
        **{"depths": [1, 2], "embedding_size": 8, "hidden_sizes": [16, 32]},
        **{"stem_channels": [3, 8, 16], "hidden_act": "relu", "use_learnable_affine_block": True},
        **{"stackwise_stage_filters": [[16, 8, 32, 1, 2, 3], [32, 16, 64, 1, 2, 3]]},
        **{"apply_downsample": [False, True], "use_lightweight_conv_block": [False, True]},
        **_PICTURE,
    },
    "MiT": {
        **{"layerwise_depths": [1, 1, 1, 1], "num_layers": 4, "layerwise_num_heads": [1, 2, 2, 2]},
        **{"layerwise_sr_ratios": [8, 4, 2, 1], "max_drop_path_rate": 0.1, **_PICTURE},
        **{"layerwise_patch_sizes": [7, 3, 3, 3], "layerwise_strides": [4, 2, 2, 2]},
        "hidden_dims": [8, 16, 16, 32],
    },
    "MobileNet": {
        **{"stackwise_expansion": [[16], [24, 24]], "stackwise_num_blocks": [1, 2]},
        **{"stackwise_num_filters": [[16], [24, 24]], "stackwise_kernel_size": [[3], [5, 5]]},
        **{"stackwise_num_strides": [[2], [2, 1]], "stackwise_se_ratio": [[0.25], [None, 0.25]]},
        **{"stackwise_activation": [["relu"], ["hard_swish", "hard_swish"]]},
        **{"stackwise_padding": [[1], [2, 2]], "output_num_filters": 64, "depthwise_filters": 8},
        **{"depthwise_stride": 2, "depthwise_residual": False, "last_layer_filter": 32},
        **_PICTURE,
    },
    "ResNet": {
        **{"input_conv_filters": [64], "input_conv_kernel_sizes": [7]},
        **{"stackwise_num_filters": [64, 64, 64], "stackwise_num_blocks": [1, 1, 1]},
        **{"stackwise_num_strides": [1, 2, 2], "block_type": "basic_block", **_PICTURE},
    },
    "SwinTransformer": {
        **{"embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2), "window_size": 2, **_PICTURE},
    },
    "VGG": {"stackwise_num_repeats": [1, 1, 2], "stackwise_num_filters": [8, 16, 16], **_PICTURE},
    "ViT": {**_VIT, "mlp_dim": 64},
    "Xception": {
        **{"stackwise_conv_filters": [[8, 16], [16, 32], [48, 48]]},
        **{"stackwise_pooling": [True, True, False], **_PICTURE},
    },
    "Bert": _HEADS,
    "DistilBert": _HEADS,
    "DebertaV3": {**_HEADS, "bucket_size": 8},
    "FNet": {**_TEXT, "max_sequence_length": 12},
    "Roberta": _HEADS,
    "RoformerV2": {**_TEXT, "num_heads": 2, "head_size": 8},
    "XLMRoberta": _HEADS,
    "Albert": {**_HEADS, "embedding_dim": 8},
}
TOKENS = np.random.default_rng(1).integers(1, 30, (2, 12)).astype("int32")


def _of_applications(name):
    maker = getattr(keras.applications, name)
    size = {"InceptionResNetV2": 96, "InceptionV3": 96, "Xception": 96}.get(name, 64)
    options = {"classifier_activation": None, "weights": None, "classes": CLASSES}
    return maker(input_shape=(size, size, 3), **options)


def _installed(package):
    return pytest.importorskip(package, reason=f"{package} is not installed")


def _of_kimm(name):
    sizes = {"InceptionV3": 96, "TinyNetE": 96, "VGG11": 224, "Xception": 96}
    size = sizes.get(name, 64)
    options = {"classifier_activation": "linear", "weights": None, "classes": CLASSES}
    maker = getattr(_installed("kimm").models, name)
    return maker(input_shape=(size, size, 3), **options)


def _of_zeromodels(name):
    _installed("zeromodels")
    models = importlib.import_module("zeromodels.models")
    found = [getattr(each, name) for each in vars(models).values() if hasattr(each, name)]
    options = dict(ZEROMODELS[name])
    if name in ("ResNetImageClassify", "SENetImageClassify"):
        blocks = importlib.import_module("zeromodels.models.resnet.resnet_model")
        options["block_fn"] = blocks.bottleneck_block
    return found[0](**options)


def _of_keras_hub(name):
    hub = _installed("keras_hub").models
    backbone = getattr(hub, f"{name}Backbone")(**KERAS_HUB[name])
    kind = "ImageClassifier" if hasattr(hub, f"{name}ImageClassifier") else "TextClassifier"
    return getattr(hub, f"{name}{kind}")(backbone, num_classes=CLASSES, preprocessor=None)


_MAKERS = {
    "keras.applications": (_of_applications, APPLICATIONS),
    "kimm": (_of_kimm, KIMM),
    "zeromodels": (_of_zeromodels, ZEROMODELS),
    "keras_hub": (_of_keras_hub, KERAS_HUB),
}
ARCHITECTURES = {
    (package, name): functools.partial(make, name)
    for package, (make, names) in _MAKERS.items()
    for name in names
}


_GAINS = {"TinyNetE": 4.0}
"""Of normalisations, where nothing of the input would come through."""


def made(package, name):
    """The architecture, every weight of it drawn, and two samples."""
    keras.utils.set_random_seed(0)
    model = ARCHITECTURES[package, name]()
    draw = np.random.default_rng(0)
    for each in model.weights:
        value = each.numpy()
        drawn = each.trainable or each.name in ("moving_mean", "moving_variance")
        if drawn and value.dtype.kind == "f" and np.ptp(value) == 0:
            gain = _GAINS.get(name, 1.0) if each.name == "gamma" else 1.0
            value = draw.normal(0, 0.05, value.shape) + gain * (value != 0)
            each.assign(value.astype("float32"))
    return model, samples(model, draw)


def samples(model, draw):
    """Two pictures, or two lines of tokens by the names of the inputs."""
    if not isinstance(model.input, dict):
        return draw.random((2, *model.inputs[0].shape[1:]), dtype="float32")
    by_name = {"token_ids": TOKENS, "segment_ids": TOKENS % 2, "padding_mask": TOKENS > 3}
    return {
        name: by_name[name].astype(keras.backend.standardize_dtype(each.dtype))
        for name, each in model.input.items()
    }
