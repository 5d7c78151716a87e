"""What is installed: the metadata, the wheel, the backend check, the import time."""

import ast
import configparser
import importlib.metadata
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import kvis2
import kvis2.callbacks
import kvis2.metrics

ROOT = Path(__file__).parents[1]


def python(code, **environment):
    """Run code in a process of its own, away from the repository's folder."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")


@pytest.fixture(scope="module")
def installed_wheel(tmp_path_factory):
    """A folder into which the wheel has been installed, without what it depends on."""
    work = tmp_path_factory.mktemp("wheel")
    for name in ["kvis2", "callbacks", "tensorboard_plugin_kvis2"]:
        shutil.copytree(ROOT / name, work / "source" / name)
    for name in ["setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"]:
        shutil.copy(ROOT / name, work / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", work, work / "source"], check=True)
    (wheel,) = work.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "-t", work / "site", wheel], check=True)
    return work / "site"


def test_metadata_names_version_python_and_licence():
    metadata = importlib.metadata.metadata("kvis2")
    assert metadata["Name"] == "kvis2"
    assert metadata["Version"] == kvis2.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License"] == "MIT" or metadata["License-Expression"] == "MIT"
    assert set(metadata.get_all("Provides-Extra")) == {
        "tensorboard",
        "dataset",
        "audit",
        "export",
        "ray",
        "demo",
        "test",
        "peers",
        "docs",
    }


def test_metadata_names_authors_pythons_and_what_the_ci_tries():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    metadata = settings["metadata"]
    assert metadata["author"] == "kvis2 authors"
    pythons = re.findall(r"Python :: (3\.\d+)", metadata["classifiers"])
    assert pythons == ["3.10", "3.11", "3.12", "3.13"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {f"pytest_on {each}" for each in (pythons[0], *pythons[2:])} <= set(
        re.findall(r"pytest_on 3\.\d+", ci)
    )


def top_level_imports(path):
    """The packages that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "imported":
            yield node.args[0].value.partition(".")[0]


def test_all_that_is_imported_is_required_and_nothing_else():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = {
        Requirement(e).name for e in settings["options"]["install_requires"].split("\n") if e
    }
    paths = [*(ROOT / "kvis2").rglob("*.py"), *(ROOT / "callbacks").rglob("*.py")]
    imported = {name for path in paths for name in top_level_imports(path)}
    extras = settings["options.extras_require"]
    of_extra = {
        Requirement(each).name for name in ("dataset", "audit", "export", "ray")
        for each in extras[name].split()
    }  # fmt: skip
    named = {"PIL": "pillow", "sklearn": "scikit-learn", "ai_edge_litert": "ai-edge-litert"}
    packages = {named.get(name, name) for name in imported}
    assert of_extra <= packages
    assert packages - set(sys.stdlib_module_names) - of_extra - {"kvis2"} == required


def test_every_extra_is_named_where_a_user_reads():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for extra in settings["options.extras_require"]:
        assert f"`{extra}`" in readme or f"[{extra}]" in readme, extra


def test_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {kvis2.__version__}\n" in citation


def test_requirements_have_lower_bounds_where_needed_and_no_upper_ones():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    of_user = {
        each.name: str(each.specifier)
        for each in map(Requirement, settings["options"]["install_requires"].split())
    }
    requirements = [Requirement(text) for text in importlib.metadata.requires("kvis2")]
    assert of_user == {
        "tensorflow": ">=2.16",
        "keras": ">=3.3",
        "h5py": "",
        "jinja2": "",
        "numpy": "",
        "matplotlib": ">=3.5",
        "pillow": ">=10.1",
    }
    bounded = {
        (each.name, str(spec))
        for each in requirements
        for spec in each.specifier
        if spec.operator != ">="
    }
    assert bounded == {("setuptools", "<82")}  # for TensorBoard up to 2.20


def test_peers_stay_out_of_the_users_environment():
    requirements = [Requirement(text) for text in importlib.metadata.requires("kvis2")]
    of_test = {each.name for each in requirements if each.marker and "test" in str(each.marker)}
    assert "tf-keras-vis" in of_test
    assert not {"opencv-python", "imageio"} & {each.name for each in requirements}


def test_public_names_exist():
    for module in [kvis2, kvis2.callbacks, kvis2.metrics]:
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.slow
def test_wheel_installs_callbacks_within_kvis2_only(installed_wheel):
    found = {path.name for path in installed_wheel.iterdir() if path.suffix != ".dist-info"}
    assert found - {"bin"} == {"kvis2", "tensorboard_plugin_kvis2"}
    assert [path.name for path in (installed_wheel / "bin").iterdir()] == ["kvis2"]
    code = """
import importlib.util, kvis2, kvis2.callbacks
print(kvis2.callbacks.CamLogger.__module__, kvis2.callbacks.__file__)
print(importlib.util.find_spec("callbacks"))
"""
    result = python(code, PYTHONPATH=str(installed_wheel))
    module, file, spec = result.stdout.split()
    assert module == "kvis2.callbacks.explanations"
    assert Path(file) == installed_wheel / "kvis2" / "callbacks" / "__init__.py"
    assert spec == "None"


@pytest.mark.slow
def test_wheel_holds_every_module_the_type_marker_and_the_licence(installed_wheel):
    sources = {path.relative_to(ROOT) for path in (ROOT / "kvis2").rglob("*.py")}
    sources |= {"kvis2" / path.relative_to(ROOT) for path in (ROOT / "callbacks").rglob("*.py")}
    tab = ROOT / "tensorboard_plugin_kvis2"
    sources |= {path.relative_to(ROOT) for path in tab.rglob("*.py")}
    installed = {path.relative_to(installed_wheel) for path in installed_wheel.rglob("*.py")}
    assert installed == sources
    pages = {path.relative_to(ROOT) for path in (ROOT / "kvis2").rglob("*.html")}
    assert {path.relative_to(installed_wheel) for path in installed_wheel.rglob("*.html")} == pages
    page = {path.name for path in (tab / "static").iterdir()}
    assert {path.name for path in (installed_wheel / tab.name / "static").iterdir()} == page
    (entry_points,) = installed_wheel.glob("kvis2-*.dist-info/entry_points.txt")
    assert "kvis2 = tensorboard_plugin_kvis2:ExplanationsLoader" in entry_points.read_text()
    assert "kvis2 = kvis2.__main__:main" in entry_points.read_text()
    assert (installed_wheel / "kvis2" / "py.typed").is_file()
    assert list(installed_wheel.glob("kvis2-*.dist-info/**/LICENSE"))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch", "numpy"])
def test_another_backend_is_refused_in_one_sentence_whether_installed_or_not(backend):
    result = python("import kvis2", KERAS_BACKEND=backend)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: kvis2 expected Keras to run on TensorFlow.")
    assert f"Received: KERAS_BACKEND={backend}" in last


@pytest.mark.slow
def test_import_adds_little_to_that_of_tensorflow_and_keras():
    code = """
import time
start = time.process_time()  # not spoilt by what else the machine does
import tensorflow, keras
keras.Sequential, tensorflow.summary  # TensorFlow imports some of itself when first asked
theirs = time.process_time() - start
import kvis2.callbacks
print((time.process_time() - start - theirs) / theirs)
"""
    shares = [float(python(code).stdout) for _ in range(3)]
    assert statistics.median(shares) <= 0.1, shares


@pytest.mark.slow
def test_import_leaves_the_plotting_library_for_those_who_plot():
    code = """
import sys, tensorflow, keras
for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
    del sys.modules[name]  # Keras may have imported it
import kvis2.callbacks
print("matplotlib" in sys.modules)
"""
    assert python(code).stdout.strip() == "False"
