"""Slow float64 NumPy versions of the measures' formulas, written to be compared with kvis2.

Nothing here knows kvis2 or TensorFlow. `score` is a function `images (n, ...) -> (n,)`; maps and
images are those of one sample unless a function says so.
"""

from itertools import pairwise

import numpy as np


def first(heatmap, count, lowest=False):
    """The `count` positions that come first; the maps of the tests have no ties."""
    order = sorted(np.ndindex(*heatmap.shape), key=lambda p: heatmap[p], reverse=not lowest)
    mask = np.zeros(heatmap.shape, bool)
    for position in order[:count]:
        mask[position] = True
    return mask


def curve(score, image, heatmap, baseline, steps, shows_first):
    """Scores as the positions go, or come, highest first."""
    found = []
    for step in range(steps + 1):
        mask = first(heatmap, step * heatmap.size // steps)
        shown = mask if shows_first else ~mask
        found.append(score(np.where(shown[..., None], image, baseline)[None])[0])
    return np.array(found)


def area(heights, fractions):
    """The trapezoid rule, one interval after the other."""
    pairs = zip(pairwise(heights), pairwise(fractions), strict=True)
    return sum((a + b) / 2 * (q - p) for (a, b), (p, q) in pairs)


def imputed(image, missing):
    """Missing pixels as weighted means of their neighbours, by a dense linear system."""
    height, width = missing.shape
    places = [tuple(p) for p in np.argwhere(missing)]
    number = {place: i for i, place in enumerate(places)}
    matrix, wanted = np.zeros((len(places),) * 2), np.zeros((len(places), image.shape[-1]))
    for (y, x), i in number.items():
        for dy, dx in np.ndindex(3, 3):
            near = (y + dy - 1, x + dx - 1)
            inside = 0 <= near[0] < height and 0 <= near[1] < width
            if not inside or near == (y, x):
                continue
            weight = 1 / 6 if dy == 1 or dx == 1 else 1 / 12
            matrix[i, i] += weight
            if near in number:
                matrix[i, number[near]] -= weight
            else:
                wanted[i] += weight * image[near]
    filled = image.astype(float).copy()
    if places:
        filled[missing] = np.linalg.solve(matrix, wanted)
    return filled


def road(score, image, heatmap, fractions):
    """Half the mean difference between the lowest and the highest removed, without noise."""
    total = 0.0
    for fraction in fractions:
        count = int(heatmap.size * fraction)
        scores = [
            score(imputed(image, first(heatmap, count, lowest))[None])[0]
            for lowest in (True, False)
        ]
        total += (scores[0] - scores[1]) / 2
    return total / len(fractions)


def pearson(a, b):
    a, b = np.ravel(a) - np.mean(a), np.ravel(b) - np.mean(b)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def ranked(values):
    """Ranks by counting: how many are below, and half of those that tie."""
    flat = np.ravel(values)
    return np.array([(flat < v).sum() + ((flat == v).sum() + 1) / 2 for v in flat])


def spearman(a, b):
    return pearson(ranked(a), ranked(b))


def ssim(a, b, window=7):
    """Structural similarity, window by window, of maps that were divided by their maxima."""
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    spread = max(a.max(), b.max()) - min(a.min(), b.min())
    c1, c2 = (0.01 * spread) ** 2, (0.03 * spread) ** 2
    found = []
    for y, x in np.ndindex(*(size - window + 1 for size in a.shape)):
        u, v = (each[y : y + window, x : x + window].ravel() for each in (a, b))
        covariance = np.cov(u, v)  # sample covariance
        top = (2 * u.mean() * v.mean() + c1) * (2 * covariance[0, 1] + c2)
        bottom = (u.mean() ** 2 + v.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
        found.append(top / bottom)
    return float(np.mean(found))


def gini(heatmap):
    values = sorted(abs(float(v)) for v in np.ravel(heatmap))
    n = len(values)
    return sum((2 * i - n - 1) * v for i, v in enumerate(values, 1)) / (n * sum(values))


def entropy(heatmap):
    values = [abs(float(v)) for v in np.ravel(heatmap)]
    shares = [v / sum(values) for v in values if v]
    return -sum(p * np.log(p) for p in shares)


def relevance_rank(heatmap, mask):
    size = int(mask.sum())
    return (first(heatmap, size) & mask).sum() / size


def auc(heatmap, mask):
    """Every pixel of the object against every one beside it."""
    pairs = [(a > b) + (a == b) / 2 for a in heatmap[mask] for b in heatmap[~mask]]
    return sum(pairs) / len(pairs)


def mu_fidelity(score, image, heatmap, subsets, baseline, correlation):
    own = score(image[None])[0]
    sums, differences = [], []
    for subset in subsets:
        sums.append(sum(float(heatmap[tuple(p)]) for p in np.argwhere(subset)))
        hidden = np.where(subset[..., None], baseline, image)
        differences.append(own - score(hidden[None])[0])
    return correlation(np.array(sums), np.array(differences))


def infidelity(score, image, attributions, perturbations, normalize):
    """Of attributions to every value of the image."""
    sums = np.array([float((each * attributions).sum()) for each in perturbations])
    moved = np.stack([image - each for each in perturbations])
    differences = score(image[None])[0] - score(moved)
    scale = (sums * differences).sum() / (sums * sums).sum() if normalize else 1.0
    return float(((scale * sums - differences) ** 2).mean())


def masked_score(score, image, heatmap, baseline=0.0):
    share = ((heatmap - heatmap.min()) / (heatmap.max() - heatmap.min()))[..., None]
    return score((share * image + (1 - share) * baseline)[None])[0]
