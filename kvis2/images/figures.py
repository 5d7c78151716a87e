"""The matplotlib figure of `kvis2.images.show`; matplotlib is imported with this module only."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from io import BytesIO
from typing import cast

from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure

from kvis2.images.colors import Limits, PictureArray


class NotebookFigure(Figure):
    """A figure that a notebook shows although pyplot, which would close it, never saw it."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    @classmethod
    def of_overlays(
        cls,
        pictures: Sequence[PictureArray],
        overlays: Sequence[PictureArray],
        titles: Sequence[str] | None,
        columns: int,
        colormap: str | Colormap,
        limits: Limits,
    ) -> NotebookFigure:
        """Draw pairs, picture above overlay, in rows of `columns`, and one colour bar."""
        rows = -(-len(pictures) // columns)
        shape = max(each.shape[0] / each.shape[1] for each in pictures)
        side = 2.2  # inches, of a picture's width
        tall = side * min(max(shape, 0.3), 2.0)
        figure = cls.with_window(side * columns + 1.0, 2 * rows * tall + 0.3 * rows)
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

    @classmethod
    def with_window(cls, width: float, height: float) -> NotebookFigure:
        """An empty figure, in inches, with a window to show it in where a script has a screen."""
        size = (width, height)
        if not hasattr(sys, "ps1") and not hasattr(builtins, "__IPYTHON__"):
            import matplotlib.pyplot as plt

            figure = plt.figure(FigureClass=cls, figsize=size, layout="constrained")
            if figure.canvas.required_interactive_framework is not None:
                return cast(NotebookFigure, figure)
            plt.close(figure)
        return cls(figsize=size, layout="constrained")

    def wait(self) -> NotebookFigure:
        """Show the window, if there is one, until it is closed; return the figure."""
        if self.canvas.manager is not None:
            import matplotlib.pyplot as plt

            plt.show(block=True)
        return self
