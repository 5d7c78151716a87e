"""Find the packages; `kvis2.callbacks` lies in the top-level folder `callbacks`.

In a checkout the link `kvis2/callbacks` leads there, so that it imports without being installed.
Where a checkout has no links (some on Windows) the installed package has it all the same.
"""

from setuptools import find_packages, setup

TAB = "tensorboard_plugin_kvis2"

setup(
    packages=sorted({*find_packages(include=["kvis2", "kvis2.*", TAB]), "kvis2.callbacks"}),
    package_dir={"kvis2.callbacks": "callbacks"},
)
