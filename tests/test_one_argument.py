"""An explainer called with images alone explains the predicted class of each, or says why not."""

import model_zoo
import numpy as np
import pytest
from explainers import EXPLAINERS, OF_TRANSFORMERS, public_explainers

from kvis2 import CategoricalScore, GradCAM


@pytest.mark.filterwarnings("ignore:.*found no evidence")  # of random weights
@pytest.mark.filterwarnings("ignore:.*left alone")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("GradCAM", "LRP", "RISE") else pytest.mark.slow)
        for name in sorted(public_explainers() - OF_TRANSFORMERS)
    ],
)
def test_images_alone_are_explained_for_their_predicted_classes(name, small_model, images):
    predicted = small_model.predict(images, verbose=0).argmax(-1).tolist()
    assert len(set(predicted)) > 1
    maps = EXPLAINERS[name](small_model)(images)
    np.testing.assert_allclose(maps, EXPLAINERS[name](small_model)(predicted, images), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OF_TRANSFORMERS))
def test_images_alone_for_transformers(name):
    case = model_zoo.KINDS["vision transformer, tokens as a grid"]()
    explainer = EXPLAINERS[name](case.model)
    np.testing.assert_array_equal(explainer(case.inputs), explainer(None, case.inputs))


@pytest.mark.parametrize("alone", [243, None, CategoricalScore(1), lambda output: output[:, 0]])
def test_a_score_alone_is_answered_in_a_sentence(alone, small_model):
    with pytest.raises((TypeError, ValueError), match=r"Expected .* Received: .*images"):
        GradCAM(small_model)(alone)
