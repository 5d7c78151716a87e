"""The matplotlib figure of `kvis2.images.show`; matplotlib is imported with this module only."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kvis2.images.colors import Limits, Picture


class NotebookFigure(Figure):
    """A figure that a notebook shows although pyplot, which would close it, never saw it."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    @classmethod
    def of_overlays(
        cls,
        pictures: Sequence[Picture] | NDArray,
        overlays: Sequence[Picture],
        titles: Sequence[str] | None,
        columns: int,
        colormap: str | Colormap,
        limits: Limits,
    ) -> NotebookFigure:
        """Draw pairs, picture above overlay, in rows of `columns`, and one colour bar."""
        rows = -(-len(pictures) // columns)
        height, width = pictures[0].shape[:2]
        side = 2.2  # inches, of a picture's width
        tall = side * min(max(height / width, 0.3), 2.0)
        figure = cls(
            figsize=(side * columns + 1.0, 2 * rows * tall + 0.3 * rows), layout="constrained"
        )
        axes = figure.subplots(2 * rows, columns, squeeze=False)
        for index, (picture, hot) in enumerate(zip(pictures, overlays, strict=True)):
            row, column = divmod(index, columns)
            axes[2 * row, column].imshow(picture)
            axes[2 * row + 1, column].imshow(hot)
            if titles is not None:
                axes[2 * row, column].set_title(titles[index], fontsize=10)
        for ax in axes.flat:
            if ax.has_data():
                ax.set_axis_off()
            else:
                ax.remove()  # a free cell of the last row
        scale = ScalarMappable(
            Normalize(*limits), colormaps[colormap] if isinstance(colormap, str) else colormap
        )
        figure.colorbar(scale, ax=figure.axes, label="evidence", shrink=0.8, aspect=30)
        return figure
