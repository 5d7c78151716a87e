"""Scripts as users of keras-vis wrote them, after its README and documentation.

Nothing is changed in them but the imports, by the table in docs/from_keras_vis.md. The fast tests
hand them a narrow VGG under the name of VGG16, the slow ones `keras.applications`, both with random
weights and few iterations.
"""

import re
from pathlib import Path

import keras
import matplotlib
import numpy as np
import pytest
from PIL import Image
from small_vgg import small_vgg

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[1] / "docs" / "from_keras_vis.md"

README = """
from keras.applications import VGG16
from vis.losses import ActivationMaximization
from vis.regularizers import TotalVariation, LPNorm
from vis.input_modifiers import Jitter
from vis.optimizer import Optimizer
from vis.callbacks import GifGenerator

# Build the VGG16 network with ImageNet weights
model = VGG16(weights='imagenet', include_top=True)
print('Model loaded.')

# The name of the layer we want to visualize
# (see model definition in vggnet.py)
layer_name = 'predictions'
layer_dict = dict([(layer.name, layer) for layer in model.layers[1:]])
output_class = [20]

losses = [
    (ActivationMaximization(layer_dict[layer_name], output_class), 2),
    (LPNorm(model.input), 10),
    (TotalVariation(model.input), 10)
]
opt = Optimizer(model.input, losses)
result = opt.minimize(max_iter=500, verbose=True, input_modifiers=[Jitter()],
                      callbacks=[GifGenerator('opt_progress')])
"""

DENSE = """
from keras.applications import VGG16
from keras import activations
from vis.utils import utils
from vis.visualization import visualize_activation
from vis.input_modifiers import Jitter

model = VGG16(weights='imagenet', include_top=True)
layer_idx = utils.find_layer_idx(model, 'predictions')

# Swap softmax with linear
model.layers[layer_idx].activation = activations.linear
model = utils.apply_modifications(model)

vis_images = []
for idx in [20, 71]:
    img = visualize_activation(
        model, layer_idx, filter_indices=idx, max_iter=500, input_modifiers=[Jitter(16)])
    vis_images.append(utils.draw_text(img, utils.lookup_imagenet_labels(idx)[0]))
both = visualize_activation(model, layer_idx, filter_indices=[20, 71], max_iter=500)
stitched = utils.stitch_images(vis_images)
"""

FILTERS = """
import numpy as np
from keras.applications import VGG16
from vis.utils import utils
from vis.visualization import visualize_activation, get_num_filters
from vis.input_modifiers import Jitter

model = VGG16(weights='imagenet', include_top=True)
layer_idx = utils.find_layer_idx(model, 'block3_conv1')
filters = np.arange(get_num_filters(model.layers[layer_idx]))[:2]

vis_images = []
for idx in filters:
    img = visualize_activation(
        model, layer_idx, filter_indices=idx, tv_weight=0., max_iter=500,
        input_modifiers=[Jitter(0.05)])
    # Refine what was found
    img = visualize_activation(
        model, layer_idx, filter_indices=idx, seed_input=img, max_iter=500)
    img = utils.draw_text(img, 'Filter {}'.format(idx))
    vis_images.append(img)
stitched = utils.stitch_images(vis_images, cols=8)
"""

ATTENTION = """
import numpy as np
import matplotlib.cm as cm
from matplotlib import pyplot as plt
from keras.applications import VGG16
from keras import activations
from vis.utils import utils
from vis.visualization import visualize_saliency, visualize_cam, overlay

model = VGG16(weights='imagenet', include_top=True)
layer_idx = utils.find_layer_idx(model, 'predictions')
model.layers[layer_idx].activation = activations.linear
model = utils.apply_modifications(model)
size = model.input.shape[1:3]
penultimate_layer = utils.find_layer_idx(model, 'block5_pool')

maps = {}
f, ax = plt.subplots(1, 2)
for modifier in [None, 'guided', 'relu']:
    for i, path in enumerate(['ouzel1.jpg', 'ouzel2.jpg']):
        img = utils.load_img(path, target_size=size)
        grads = visualize_saliency(
            model, layer_idx, filter_indices=20, seed_input=img, backprop_modifier=modifier)
        heatmap = visualize_cam(
            model, layer_idx, filter_indices=20, seed_input=img,
            penultimate_layer_idx=penultimate_layer, backprop_modifier=modifier)
        # Lets overlay the heatmap onto original image.
        jet_heatmap = np.uint8(cm.jet(heatmap)[..., :3] * 255)
        ax[i].imshow(overlay(jet_heatmap, img))
        maps[modifier, i] = grads, heatmap
f.savefig('attention.png')
plt.close(f)
"""

RESNET = """
from keras.applications import ResNet50
from vis.utils import utils
from vis.visualization import visualize_cam

model = ResNet50(weights='imagenet', include_top=True)
layer_idx = utils.find_layer_idx(model, 'predictions')
img = utils.load_img('ouzel1.jpg', target_size=(224, 224))
heatmap = visualize_cam(
    model, layer_idx, filter_indices=20, seed_input=img,
    penultimate_layer_idx=utils.find_layer_idx(model, 'conv5_block3_3_conv'))
"""

STEERING = """
from keras import layers, models
from vis.utils import utils
from vis.visualization import visualize_saliency, visualize_cam

model = models.Sequential([
    layers.Input((24, 32, 3)),
    layers.Conv2D(4, 5, strides=2, activation='relu'),
    layers.Conv2D(4, 3, activation='relu'),
    layers.Flatten(),
    layers.Dense(1),
])
img = utils.load_img('ouzel1.jpg', target_size=(24, 32))
bgr_img = utils.bgr2rgb(img)

titles = ['right steering', 'left steering', 'maintain steering']
modifiers = [None, 'negate', 'small_values']
saliency, cams = {}, {}
for title, modifier in zip(titles, modifiers):
    saliency[title] = visualize_saliency(
        model, layer_idx=-1, filter_indices=0, seed_input=bgr_img, grad_modifier=modifier)
    cams[title] = visualize_cam(
        model, layer_idx=-1, filter_indices=0, seed_input=bgr_img, grad_modifier=modifier)
"""

CUSTOM_LOSS = """
from keras import backend as K
from keras.applications import VGG16
from vis.losses import Loss, ActivationMaximization
from vis.regularizers import TotalVariation
from vis.callbacks import OptimizerCallback
from vis.visualization import visualize_activation_with_losses

class BrightLoss(Loss):
    def __init__(self, img_input):
        super(BrightLoss, self).__init__()
        self.name = 'Bright Loss'
        self.img = img_input

    def build_loss(self):
        return -K.mean(self.img) / 255

class Record(OptimizerCallback):
    def __init__(self):
        self.rows = []

    def callback(self, i, named_losses, overall_loss, grads, wrt_value):
        self.rows.append(dict(named_losses))

model = VGG16(weights='imagenet', include_top=True)
record = Record()
losses = [
    (ActivationMaximization(model.layers[-1], 20), 1),
    (BrightLoss(model.input), 5),
    (TotalVariation(model.input, beta=1.5), 1e-3),
]
img = visualize_activation_with_losses(
    model.input, losses, input_range=(0, 255), max_iter=500, callbacks=[record])
"""


def ported(script, iterations):
    """The script with the imports of kvis2, by the documented table, and less to do."""
    table = re.findall(
        r"^\| `(from .*?)`.*? \| `(from kvis2.*?|from keras.*?)` \|$", DOCUMENT.read_text(), re.M
    )
    assert len(table) >= 10
    for old, new in table:
        script = script.replace(old.removesuffix(" ..."), new.removesuffix(" ..."))
    assert "vis." not in script.replace("kvis2.", "")
    return script.replace("max_iter=500", f"max_iter={iterations}").replace("'imagenet'", "None")


@pytest.fixture(params=["narrow", pytest.param("applications", marks=pytest.mark.slow)])
def run(request, tmp_path, monkeypatch):
    """Runs a script in a folder with two photographs; returns its names."""
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    if request.param == "narrow":
        monkeypatch.setattr(
            keras.applications, "VGG16", lambda weights, include_top: small_vgg(size=64)
        )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), np.uint8)
    for number, picture in enumerate(pixels, 1):
        Image.fromarray(picture).resize((250, 230)).save(f"ouzel{number}.jpg")

    def run(script, iterations=3):
        names = {}
        exec(ported(script, iterations), names)
        return names

    return run


def test_the_readme(run, capsys):
    names = run(README)
    height, width, _ = names["model"].input.shape[1:]
    with Image.open("opt_progress.gif") as gif:
        assert (gif.n_frames, gif.size) == (3, (width, height))
    image, gradient, value = names["result"]
    assert image.shape == (height, width, 3)
    assert gradient.shape == value.shape == (1, height, width, 3)
    assert np.linalg.norm(gradient) == pytest.approx(1, rel=1e-4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Model loaded."
    assert [line.split(",")[0] for line in printed[1:]] == [f"Iteration: {i}" for i in (1, 2, 3)]
    for name in ("ActivationMax Loss", "L-6.0 Norm Loss", "TV(2.0) Loss", "overall loss: "):
        assert name in printed[1]


@pytest.mark.filterwarnings("ignore:Expected a font file")  # FreeSans.ttf, as before
def test_units_of_a_dense_layer(run):
    names = run(DENSE)
    size = names["model"].input.shape[1]
    assert names["model"].layers[-1].activation is keras.activations.linear
    assert names["both"].shape == (size, size, 3)
    assert names["both"].dtype == np.uint8
    assert names["stitched"].shape == (size, 2 * size + 5, 3)
    first, second = names["vis_images"]
    assert np.abs(first.astype(int) - second).mean() > 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Expected a font file")
def test_filters_of_a_convolution(run):
    names = run(FILTERS)
    size = names["model"].input.shape[1]
    assert names["stitched"].shape == (size, 2 * size + 5, 3)
    assert len({picture.tobytes() for picture in names["vis_images"]}) == 2


@pytest.mark.filterwarnings("ignore:.*all evidence at")  # of random weights
def test_saliency_and_grad_cam(run):
    names = run(ATTENTION)
    maps = names["maps"]
    size = names["model"].input.shape[1]
    for grads, heatmap in maps.values():
        assert grads.shape == heatmap.shape == (size, size)
        assert grads.min() == 0
        # Gradients through the random weights of VGG16 are as small as the epsilon of the division.
        assert grads.max() > (0.99 if size == 64 else 0)
        assert 0 <= heatmap.min() <= heatmap.max() <= 1
    for one, other in ((None, "guided"), (None, "relu"), ("guided", "relu")):
        first, second = (maps[modifier, 0][0] for modifier in (one, other))
        assert np.abs(first / first.max() - second / second.max()).max() > 0.1
    assert Path("attention.png").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*all evidence at")
@pytest.mark.parametrize("run", ["applications"], indirect=True)
def test_grad_cam_of_a_residual_net_with_its_penultimate_layer_named(run):
    heatmap = run(RESNET)["heatmap"]
    assert heatmap.shape == (224, 224)
    assert 0 <= heatmap.min() <= heatmap.max() <= 1


@pytest.mark.filterwarnings("ignore:.*all evidence at")
@pytest.mark.parametrize("run", ["narrow"], indirect=True)
def test_regression(run):
    names = run(STEERING)
    right, left, _ = names["saliency"].values()
    # The one is the largest gradient over the colours, the other minus the smallest.
    assert np.abs(right - left).max() > 0.1
    for heatmap in (*names["saliency"].values(), *names["cams"].values()):
        assert heatmap.shape == (24, 32)
        assert 0 <= heatmap.min() <= heatmap.max() <= 1
    assert max(heatmap.max() for heatmap in names["cams"].values()) == pytest.approx(1, abs=1e-4)


def test_a_loss_of_ones_own(run):
    names = run(CUSTOM_LOSS, iterations=20)
    rows = names["record"].rows
    assert set(rows[0]) == {"ActivationMax Loss", "Bright Loss", "TV(1.5) Loss"}
    assert rows[-1]["Bright Loss"] < rows[0]["Bright Loss"] < 0
    assert names["img"].dtype == np.uint8
