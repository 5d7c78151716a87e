"""A tab of TensorBoard that shows where a model looks, from step to step.

It imports TensorBoard, Werkzeug and the standard library alone: TensorBoard loads it at every
start, whatever is being looked at.
"""

from tensorboard_plugin_kvis2.loader import ExplanationsLoader

__all__ = ["ExplanationsLoader"]
