"""What gradient ascent moves: the pixels of an image, its spectrum, or the phases of it.

A parametrization is a differentiable map from parameters to images. The optimum is the same
whatever the map; the way there, and so the picture that is found, is not: in decorrelated
coordinates a step goes as far in every direction of natural images (Olah et al. 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from kvis2.regularizers import Bounds


@dataclass(frozen=True)
class Parametrization:
    """Base: `image(parameters, shape, bounds)` makes images that `encode` takes apart again."""

    def start(self, shape: Sequence[int], bounds: Bounds, seed: int) -> np.ndarray:
        """Random parameters of one image.

        Args:
            shape: Shape of the image, `(*spatial, channels)`.
            bounds: Lowest and highest value of the input.
            seed: The same seed gives the same parameters.
        """
        raise NotImplementedError

    def image(self, parameters: tf.Tensor, shape: Sequence[int], bounds: Bounds) -> tf.Tensor:
        """The images `(batch, *shape)` of `parameters`."""
        raise NotImplementedError

    def encode(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """Parameters whose images are `images`, as far as there are any."""
        raise NotImplementedError

    def penalized(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images in the units in which regularizers see them."""
        return images


@dataclass(frozen=True)
class Pixels(Parametrization):
    r"""The values of the pixels themselves.

    A start is uniform noise, `low + (high - low) (mean + deviation u)`, `u` standardised.

    Args:
        mean: Mean of the start as a fraction of the input range.
        deviation: Its standard deviation, likewise; 0.2887 spans the whole range about 0.5.
    """

    mean: float = 0.5
    deviation: float = 0.05

    def start(self, shape: Sequence[int], bounds: Bounds, seed: int) -> np.ndarray:
        """Standardised uniform noise about the middle of the range."""
        noise = np.random.default_rng(seed).random(tuple(shape))
        standard = (noise - noise.mean()) / (noise.std() + 1e-7)
        low, high = (np.asarray(each) for each in bounds)
        return (low + (high - low) * (self.mean + self.deviation * standard)).astype(np.float32)

    def image(self, parameters: tf.Tensor, shape: Sequence[int], bounds: Bounds) -> tf.Tensor:
        """The parameters."""
        return parameters

    def encode(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images."""
        return images


@dataclass(frozen=True)
class Standardized(Pixels):
    r"""Pixels in the units of a preprocessing: `x = low + (high - low) (offset + scale z)`.

    Steps, decays and norms are then those of recipes for models that take `z`.

    Args:
        mean: As for `Pixels`.
        deviation: As for `Pixels`.
        offset: Mean of each channel, as a fraction of the input range.
        scale: Standard deviation of each channel, likewise.
    """

    offset: tuple[float, ...] = (0.485, 0.456, 0.406)
    scale: tuple[float, ...] = (0.229, 0.224, 0.225)

    def start(self, shape: Sequence[int], bounds: Bounds, seed: int) -> np.ndarray:
        """The start of `Pixels`, in standard units."""
        return np.asarray(self.encode(super().start(shape, bounds, seed), bounds), np.float32)

    def image(self, parameters: tf.Tensor, shape: Sequence[int], bounds: Bounds) -> tf.Tensor:
        """The parameters brought to the input range."""
        low, high = bounds
        offset, scale = self._units()
        return low + (high - low) * (offset + scale * parameters)

    def encode(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images in standard units."""
        low, high = bounds
        offset, scale = self._units()
        return ((images - low) / (high - low) - offset) / scale

    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(self.offset, np.float32), np.asarray(self.scale, np.float32)

    def penalized(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The images in standard units."""
        return self.encode(images, bounds)


# Square root of the covariance of colours in natural images (Olah et al. 2017): a unit step
# along each axis is one that is as common among photographs. Divided by its longest column.
_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_COLORS = (_COLORS / np.linalg.norm(_COLORS, axis=0).max()).astype(np.float32)


@dataclass(frozen=True)
class Fourier(Parametrization):
    r"""The spectrum of the image, whitened, in decorrelated colours.

    `x = low + (high - low) sigmoid(v min(1, contrast / std(v)))`, `v = C F^-1(w z)`,
    `w ~ max(f, 1/n)^-decay`, with `F` the Fourier transform over the spatial axes, `f` the
    frequency, `n` the longest side, and `C` the square root of the colour covariance of natural
    images (three channels only; others are left as they are). `w` is such that z of unit variance
    gives pixels of unit variance before C, so that one learning rate does for all sizes and
    decays. The images never leave the range, and the limit of contrast keeps them off its ends,
    where nothing would move any more: a filter whose response grows with contrast, as of all
    early layers, still has to find its pattern.

    Args:
        decay: How much stronger low frequencies are; 1 is as in natural images, more is smoother.
        deviation: Standard deviation of the start.
        decorrelate: Whether three channels are decorrelated: True, or "bgr" if blue comes first.
        contrast: The largest standard deviation of v over an image, infinity for no limit. Of
            photographs it is about 1 to 2.

    References:
        Olah et al. (2017), Feature Visualization. https://distill.pub/2017/feature-visualization

    Example:
        >>> ActivationMaximization(model, parametrization=Fourier(decay=1.0))(20)
    """

    decay: float = 1.5
    deviation: float = 0.01
    decorrelate: bool | str = True
    contrast: float = 2.0

    def start(self, shape: Sequence[int], bounds: Bounds, seed: int) -> np.ndarray:
        """A faint random spectrum: a grey image."""
        size = _spectrum_shape(shape)
        return (np.random.default_rng(seed).normal(size=size) * self.deviation).astype(np.float32)

    def image(self, parameters: tf.Tensor, shape: Sequence[int], bounds: Bounds) -> tf.Tensor:
        """The images of the spectra."""
        weighted = parameters * self._scale(shape)
        spectrum = tf.complex(weighted[:, 0], weighted[:, 1])
        values = self._in_colors(inverse_transform(spectrum, shape[:-1]))
        deviation = tf.sqrt(_variance(values) + 1e-12)
        return _squashed(values * tf.minimum(1.0, self.contrast / deviation), bounds)

    def encode(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The spectra of the images; values at the ends of the range are moved inside a little."""
        low, high = bounds
        unit = tf.clip_by_value((images - low) / (high - low), 0.01, 0.99)
        logits = tf.math.log(unit) - tf.math.log(1.0 - unit)
        matrix = self._matrix(images.shape[-1])
        if matrix is not None:
            logits = tf.tensordot(logits, np.linalg.inv(matrix).T, 1)
        spectrum = transform(logits)
        parts = tf.stack([tf.math.real(spectrum), tf.math.imag(spectrum)], axis=1)
        return parts / self._scale(images.shape[1:])

    def _in_colors(self, values: tf.Tensor) -> tf.Tensor:
        matrix = self._matrix(values.shape[-1])
        return values if matrix is None else tf.tensordot(values, matrix.T, 1)

    def _matrix(self, channels: int) -> np.ndarray | None:
        if channels != 3 or not self.decorrelate:
            return None
        return _COLORS[::-1] if self.decorrelate == "bgr" else _COLORS

    def _scale(self, shape: Sequence[int]) -> np.ndarray:
        spatial = shape[:-1]
        floor = 1.0 / max(spatial)
        decays = np.maximum(frequencies(spatial), floor) ** -self.decay
        every = np.maximum(frequencies(spatial, real=False), floor) ** -self.decay
        # Parseval: the variance of a pixel is the sum of that of the whole spectrum over n^2.
        variance = 2.0 * np.sum(every**2) / np.prod(spatial, dtype=float) ** 2
        return (decays / np.sqrt(variance)).astype(np.float32)


@dataclass(frozen=True)
class MagnitudeConstrained(Fourier):
    r"""Only the phases of the spectrum, at the fixed magnitudes of natural images (MaCo).

    `x = low + (high - low) sigmoid(C standardised(F^-1(r exp(i phi))))`: the phases phi are
    optimised, the magnitudes r are not, so that no frequency can be exaggerated. It wants
    `RandomCrop` and noise among the transforms rather than regularizers.

    Args:
        decay: Magnitudes fall with frequency as `f^-decay`.
        decorrelate: As for `Fourier`.
        contrast: Standard deviation of the logits of the image, before C.
        magnitude: Magnitudes to use instead, as nested tuples in the shape of the spectrum
            `(channels, ..., frequencies)`; see `mean_magnitude`.

    References:
        Fel et al. (2023), Unlocking Feature Visualization for Deeper Networks with MAgnitude
        Constrained Optimization. https://arxiv.org/abs/2306.06805
    """

    deviation: float = field(default=0.0, init=False, repr=False)  # The start is a random phase.
    contrast: float = 1.0
    magnitude: Any = None

    def start(self, shape: Sequence[int], bounds: Bounds, seed: int) -> np.ndarray:
        """Random phases."""
        size = _spectrum_shape(shape)[1:]
        return np.random.default_rng(seed).uniform(-np.pi, np.pi, size).astype(np.float32)

    def image(self, parameters: tf.Tensor, shape: Sequence[int], bounds: Bounds) -> tf.Tensor:
        """The images of the phases."""
        magnitude = self._scale(shape) if self.magnitude is None else self.magnitude
        magnitude = tf.constant(magnitude, tf.float32)
        spectrum = tf.complex(magnitude * tf.cos(parameters), magnitude * tf.sin(parameters))
        values = inverse_transform(spectrum, shape[:-1])
        centred = values - tf.reduce_mean(values, _all_but_first(values), keepdims=True)
        standard = centred / tf.sqrt(_variance(centred) + 1e-12)
        return _squashed(self._in_colors(standard * self.contrast), bounds)

    def encode(self, images: tf.Tensor, bounds: Bounds) -> tf.Tensor:
        """The phases of the images; their magnitudes are not kept."""
        parts = super().encode(images, bounds)
        return tf.math.atan2(parts[:, 1], parts[:, 0])


def _all_but_first(values: tf.Tensor) -> list[int]:
    return list(range(1, values.shape.rank))


def _variance(values: tf.Tensor) -> tf.Tensor:
    """Of each image about its own mean, with axes of length one."""
    return tf.math.reduce_variance(values, _all_but_first(values), keepdims=True)


def _squashed(values: tf.Tensor, bounds: Bounds) -> tf.Tensor:
    low, high = bounds
    return low + (high - low) * tf.sigmoid(values)


def mean_magnitude(images: Any, bounds: Bounds = (0.0, 255.0)) -> tuple[Any, ...]:
    """The mean magnitude spectrum of photographs, for `MagnitudeConstrained(magnitude=...)`.

    Args:
        images: `(batch, *spatial, 3)` of the size that will be optimised.
        bounds: Lowest and highest value of the images.

    Returns:
        Nested tuples `(3, ..., frequencies)`, so that it can be compared and kept.
    """
    photographs = tf.convert_to_tensor(images, tf.float32)
    parts = Fourier(decay=0.0).encode(photographs, bounds)
    return _as_tuples(tf.reduce_mean(tf.norm(parts, axis=1), axis=0).numpy())


def _as_tuples(array: np.ndarray) -> Any:
    return tuple(map(_as_tuples, array)) if array.ndim else float(array)


def frequencies(spatial: Sequence[int], real: bool = True) -> np.ndarray:
    """The frequency, in cycles per pixel, of every entry of a spectrum over `spatial`.

    Args:
        spatial: Lengths of the spatial axes.
        real: Of the spectrum of a real image, which leaves out the conjugate half.
    """
    last = (np.fft.rfftfreq if real else np.fft.fftfreq)(spatial[-1])
    axes = [np.fft.fftfreq(n) for n in spatial[:-1]] + [last]
    return np.sqrt(sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")))


def _spectrum_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """(real and imaginary part, channels, frequencies...) of one image."""
    *spatial, channels = shape
    return (2, channels, *spatial[:-1], spatial[-1] // 2 + 1)


def transform(images: tf.Tensor) -> tf.Tensor:
    """The real Fourier transform over all spatial axes, `(batch, channels, *frequencies)`."""
    rank = images.shape.rank
    spectrum = tf.signal.rfft(tf.transpose(images, [0, rank - 1, *range(1, rank - 1)]))
    for axis in range(2, rank - 1):
        spectrum = _along(tf.signal.fft, spectrum, axis)
    return spectrum


def inverse_transform(spectrum: tf.Tensor, spatial: Sequence[int]) -> tf.Tensor:
    """Images `(batch, *spatial, channels)` of spectra `(batch, channels, *frequencies)`."""
    rank = spectrum.shape.rank
    if len(spatial) == 2:
        values = tf.signal.irfft2d(spectrum, spatial)
    else:  # TensorFlow has no gradient for three axes at once.
        for axis in range(2, rank - 1):
            spectrum = _along(tf.signal.ifft, spectrum, axis)
        values = tf.signal.irfft(spectrum, spatial[-1:])
    return tf.transpose(values, [0, *range(2, rank), 1])


def _along(function: Any, spectrum: tf.Tensor, axis: int) -> tf.Tensor:
    order = [each for each in range(spectrum.shape.rank) if each != axis] + [axis]
    back = [order.index(each) for each in range(spectrum.shape.rank)]
    return tf.transpose(function(tf.transpose(spectrum, order)), back)
