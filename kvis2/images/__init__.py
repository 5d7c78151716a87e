"""Pictures of heatmaps: colours, overlays, panels, grids, strips, PNG and GIF files, figures.

Everything here takes and returns plain arrays; no model is involved. Pictures are uint8 RGB.
"""

from kvis2.images.answers import ClassNames, class_name
from kvis2.images.areas import area_means
from kvis2.images.colors import Display, PictureArray, displayable, normalize
from kvis2.images.drawing import LINE, WHITE, Color, captioned, resize, write
from kvis2.images.files import comparable, file_name, written_aside
from kvis2.images.framing import Framing
from kvis2.images.gradients import (
    color_picture,
    gray_picture,
    negative_picture,
    positive_picture,
    relevance_picture,
)
from kvis2.images.painting import (
    Opacity,
    check_opacity,
    color_ends,
    color_table,
    colorize,
    is_flat,
    overlay,
)
from kvis2.images.panels import Explanation, panel
from kvis2.images.reading import read
from kvis2.images.sequences import at_least_one, columns_of, montage, signal
from kvis2.images.sheets import grid, notebook_figure, save, save_gif, show, strip

__all__ = [
    "LINE",
    "WHITE",
    "ClassNames",
    "Color",
    "Display",
    "Explanation",
    "Framing",
    "Opacity",
    "PictureArray",
    "area_means",
    "at_least_one",
    "captioned",
    "check_opacity",
    "class_name",
    "color_ends",
    "color_picture",
    "color_table",
    "colorize",
    "columns_of",
    "comparable",
    "displayable",
    "file_name",
    "gray_picture",
    "grid",
    "is_flat",
    "montage",
    "negative_picture",
    "normalize",
    "notebook_figure",
    "overlay",
    "panel",
    "positive_picture",
    "read",
    "relevance_picture",
    "resize",
    "save",
    "save_gif",
    "show",
    "signal",
    "strip",
    "write",
    "written_aside",
]
