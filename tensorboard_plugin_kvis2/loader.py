"""How TensorBoard finds the tab. Imported at each of its starts, so that nothing heavy is here."""

from __future__ import annotations

import argparse

from tensorboard.plugins import base_plugin

PLUGIN_NAME = "kvis2"
_EVERY_STEP = 0


class ExplanationsLoader(base_plugin.TBLoader):
    """Load the tab, and keep every step of its data."""

    def fix_flags(self, flags: argparse.Namespace) -> None:
        """Keep every step, where the user has not said how many.

        TensorBoard keeps ten steps of a plugin that it does not know. The data of a step is small.
        """
        samples = dict(getattr(flags, "samples_per_plugin", None) or {})
        flags.samples_per_plugin = {PLUGIN_NAME: _EVERY_STEP, **samples}

    def load(self, context: base_plugin.TBContext) -> base_plugin.TBPlugin | None:
        """Return the plugin, or None where TensorBoard runs without its data interface."""
        if context.data_provider is None:
            return None
        from tensorboard_plugin_kvis2.plugin import ExplanationsPlugin

        return ExplanationsPlugin(context)
