"""The measures against stored numbers: of other toolkits where they follow the papers."""

import numpy as np
import pytest
import tensorflow as tf
from small_alexnet import ORDER, small_alexnet

import kvis2
from kvis2 import metrics
from kvis2.models import LinearOutput

MAPS = ("grad", "bump")


@pytest.fixture(scope="module")
def goldens(shared_data):
    return np.load(shared_data / "metrics_goldens.npz")


@pytest.fixture(scope="module")
def model(shared_data):
    return small_alexnet(shared_data / "small_alexnet.npz")


@pytest.fixture(scope="module")
def images(goldens):
    return goldens["inputs"]


@pytest.fixture(scope="module")
def targets(goldens):
    return goldens["targets"].tolist()


@pytest.fixture(params=MAPS)
def name(request):
    return request.param


@pytest.fixture
def maps(name, goldens):
    return np.broadcast_to(goldens[f"map_{name}"], (4, 224, 224))


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def correlated(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.slow
def test_deletion_and_insertion(goldens, model, images, targets, name, maps):
    kernel = np.repeat(goldens["blur_kernel"][:, :, None, None], 3, axis=2)

    def blurred(array):
        padded = tf.pad(array, [[0, 0], [5, 5], [5, 5], [0, 0]])
        return tf.nn.depthwise_conv2d(padded, kernel, [1] * 4, "VALID").numpy()

    settings = {
        "del": (metrics.Deletion, 0.0),
        "ins_zero": (metrics.Insertion, 0.0),
        "del_blur": (metrics.Deletion, blurred),
        "ins_blur": (metrics.Insertion, blurred),
    }
    for key, (measure, baseline) in settings.items():
        found = measure(model, baseline=baseline)(targets, images, maps)
        close(found, goldens[f"{key}_auc_{name}"])
        close(found.curve, goldens[f"{key}_curve_{name}"])
        logits = measure(model, baseline=baseline, model_modifier=LinearOutput())
        close(logits(targets, images, maps), goldens[f"{key}_auclogit_{name}"])


@pytest.mark.slow
def test_road_without_noise(goldens, model, images, targets):
    maps = goldens["map_grad"]
    found = metrics.Road(model, fractions=(0.2, 0.4, 0.6, 0.8), noise=0)(targets, images, maps)
    most, least = goldens["roadk_morf_grad"], goldens["roadk_lerf_grad"]
    close(found.details["morf"], most)
    close(found.details["lerf"], least)
    close(found, ((least - most) / 2).mean(axis=1))


@pytest.mark.slow
def test_mu_fidelity(goldens, model, images, targets, name, maps):
    cells, pixels = ~goldens["mufid_keep_masks"], goldens["fc_subsets_pixels"]
    settings = {
        "mufid_spearman": {"subsets": cells},
        "mufid_pearson": {"subsets": cells, "correlation": "pearson"},
        "fc_pix_spearman": {"subsets": pixels},
        "fc_pix_pearson": {"subsets": pixels, "correlation": "pearson"},
        "fc_pix_pearson_prob": {
            "subsets": pixels,
            "correlation": "pearson",
            "model_modifier": None,
        },
    }
    for key, options in settings.items():
        found = metrics.MuFidelity(model, baseline=0, **options)(targets, images, maps)
        correlated(found, goldens[f"{key}_{name}"])


@pytest.mark.slow
def test_mu_fidelity_of_single_values_of_the_channels(goldens, model, images, targets, name, maps):
    subsets = np.zeros((100, 4, 3 * 224 * 224), bool)
    np.put_along_axis(subsets, goldens["fc_subsets_chw"].astype(int), True, axis=-1)
    subsets = subsets.reshape(100, 4, 3, 224, 224).transpose(0, 1, 3, 4, 2)
    measure = metrics.MuFidelity(model, subsets=subsets, baseline=0, correlation="pearson")
    correlated(measure(targets, images, maps), goldens[f"fc_chw_pearson_{name}"])


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_infidelity(goldens, model, images, targets, normalize):
    signed = kvis2.Saliency(model, keepdims=True, normalize=False)(targets, images)
    maps = {each: np.broadcast_to(goldens[f"map_{each}"], (4, 224, 224)) for each in MAPS}
    kind = "infidnorm" if normalize else "infid"
    for name, each in {**maps, "gradsigned3": signed}.items():
        options = {"normalize": normalize, "baseline": 0}
        square = metrics.Infidelity(model, **options)(targets, images, each)
        close(square, goldens[f"{kind}_square_{name}"])
        noise = metrics.Infidelity(model, perturbations=goldens["infid_blocks"], **options)
        close(noise(targets, images, each), goldens[f"{kind}_noise_{name}"])


def test_drop_and_gain(goldens, model, images, targets, name, maps):
    for kind, given in (("minmax", maps), ("absminmax", np.abs(maps))):
        drop = metrics.AverageDrop(model)(targets, images, given)
        close(drop, goldens[f"drop_{kind}_{name}"])
        close(drop.details["after"], goldens[f"drop_p_{kind}_{name}"])
        np.testing.assert_array_equal(drop.details["increase"], goldens[f"inc_{kind}_{name}"])
        absolute = metrics.AverageDrop(model, relative=False)(targets, images, given)
        close(absolute, goldens[f"dropabs_{kind}_{name}"])
        gain = metrics.ConfidenceGain(model)(targets, images, given)
        close(gain, goldens[f"gain_{kind}_{name}"])


def test_concentration(goldens, name, maps):
    close(metrics.sparseness(maps), goldens[f"gini_{name}"])
    close(metrics.complexity(maps), goldens[f"entropy_{name}"])
    np.testing.assert_array_equal(metrics.effective_complexity(maps), goldens[f"effc_{name}"])
    found = metrics.effective_complexity(maps, threshold=0.01)
    np.testing.assert_array_equal(found, goldens[f"effc01_{name}"])


def test_localisation(goldens, name, maps):
    mask = goldens["loc_mask"]
    close(metrics.pointing_game(maps, mask), goldens[f"loc_pointing_{name}"])
    close(metrics.energy_in_box(maps, mask), goldens[f"loc_masspos_{name}"])
    close(metrics.energy_in_box(np.abs(maps), mask), goldens[f"loc_massabs_{name}"])
    close(metrics.relevance_rank(maps, mask), goldens[f"loc_rank_{name}"])
    close(metrics.localization_auc(maps, mask), goldens[f"loc_auc_{name}"])


def test_completeness_gap(goldens, model, images, targets):
    found = metrics.CompletenessGap(model, relative=False)(targets, images, goldens["ig_map"])
    difference = found.details["scores"] - found.details["baseline_scores"]
    close(difference, goldens["ig_logit_diff"])
    # What is left of two numbers of about ten in float32 has five digits after the point.
    np.testing.assert_allclose(found, np.abs(goldens["ig_delta"]), atol=1e-5)


@pytest.mark.parametrize("order", ["top_down", "independent", "bottom_up"])
def test_parameter_randomization(goldens, model, images, targets, order):
    explainer = kvis2.Saliency(model)
    found = metrics.ParameterRandomization(explainer, order=order, seed=42)(targets, images)
    suffix = "" if order == "top_down" else f"_{order}"
    correlated(found.curve, goldens[f"mprt_spearman{suffix}"].T)
    layers = [layer for (layer,) in found.details["layers"]]
    assert layers == list(ORDER if order != "top_down" else reversed(ORDER))
    if order == "top_down":
        windows = metrics.ParameterRandomization(explainer, similarity="ssim", seed=42)
        correlated(windows(targets, images).curve, goldens["mprt_ssim"].T)


@pytest.mark.parametrize("similarity", ["spearman", "pearson", "ssim"])
def test_random_logit(goldens, model, images, targets, similarity):
    others = goldens["rl_off_targets"]
    measure = metrics.RandomLogit(kvis2.Saliency(model), classes=others, similarity=similarity)
    correlated(measure(targets, images), goldens[f"rl_{similarity}"])


def test_max_sensitivity(goldens, model, images, targets):
    options = {"perturbations": goldens["sens_blocks"]}
    maps = kvis2.Saliency(model)
    close(metrics.MaxSensitivity(maps, **options)(targets, images), goldens["sensmax_grad"])
    signed = metrics.MaxSensitivity(kvis2.Saliency(model, keepdims=True), **options)
    close(signed(targets, images), goldens["sensmax_gradsigned3"])
