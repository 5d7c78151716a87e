"""The benchmark: its protocol, its judgement of agreement, its report."""

import contextlib
import json
import sys
from pathlib import Path

import benchmarks_package  # noqa: F401 (so that `benchmarks` is found)
import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import __main__ as program
from benchmarks import agreement, cases, floors, measurement, models, reasons, report
from benchmarks.agreement import compare
from benchmarks.cases import Case
from benchmarks.measurement import Measured, Row, failures, measure
from benchmarks.workers import Worker, WorkerError
from benchmarks.workers.protocol import Task

REPOSITORY = Path(__file__).resolve().parents[1]
CASE = Case("gradcam", "small", 2)


# --- The protocol --------------------------------------------------------------------------------

FAKE = """
import time
import numpy as np
from benchmarks.workers.protocol import Prepared, serve

def gradcam(task):
    print("a package that prints")
    def run():
        time.sleep(task.options["seconds"])
        return np.ones(2**23)  # 64 MiB
    return Prepared(run, lambda: task.model * task.images[..., 0])

def saliency(task):
    raise ImportError("it has none\\nand a long story")

serve(lambda folder: 2.0, {"gradcam": gradcam, "saliency": saliency}, ["numpy"])
"""


@pytest.fixture
def worker():
    process = Worker([sys.executable, "-c", FAKE])
    yield process
    process.close()


@pytest.fixture
def folder(tmp_path):
    images = np.arange(2 * 4 * 5 * 3, dtype=np.float32).reshape(2, 4, 5, 3)
    np.savez(tmp_path / "inputs.npz", images=images, classes=np.arange(2), layer="conv")
    return tmp_path


def prepare(worker, folder, method="gradcam", batch=2):
    return worker.ask(
        "prepare", folder=str(folder), method=method, batch=batch, options={"seconds": 0.05}
    )


def test_worker_answers(worker, folder, tmp_path):
    assert 0.05 <= prepare(worker, folder)["first_seconds"] < 5
    assert 0.05 <= worker.ask("time", repeats=2)["seconds"] < 2.5
    worker.ask("result", path=str(tmp_path / "result.npy"))
    expected = 2 * np.load(folder / "inputs.npz")["images"][..., 0]
    np.testing.assert_array_equal(np.load(tmp_path / "result.npy"), expected)
    assert worker.ask("about")["versions"] == {"numpy": np.__version__}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is told by /proc")
def test_worker_tells_the_memory_of_its_peak(worker, folder):
    prepare(worker, folder)
    assert 60 < worker.ask("memory")["peak_mib"] < 100


def test_an_error_is_an_answer_and_the_worker_goes_on(worker, folder):
    with pytest.raises(WorkerError, match=r"^ImportError: it has none$"):
        prepare(worker, folder, "saliency")
    with pytest.raises(WorkerError, match=r"^KeyError: 'lrp'$"):
        prepare(worker, folder, "lrp")
    with pytest.raises(WorkerError, match=r"Expected 3 images\. Received: 2"):
        prepare(worker, folder, batch=3)
    assert prepare(worker, folder)["first_seconds"] > 0


def test_a_dead_worker_says_why():
    process = Worker([sys.executable, "-c", "import no_such_package"])
    for _ in range(2):
        with pytest.raises(WorkerError, match="the worker died: ModuleNotFoundError: No module"):
            process.ask("about")
    process.close()


# --- Agreement -----------------------------------------------------------------------------------


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((3, 7, 5)).astype(np.float32)


def test_maps_agree_up_to_their_scale(maps):
    assert compare("map", maps, 5 * maps + 1e-5).agrees


@pytest.mark.parametrize("kind", ["map", "gradient"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda maps: maps[:, ::-1],
        lambda maps: maps.swapaxes(1, 2),
        lambda maps: maps[:2],
        lambda maps: maps**2,
        lambda maps: np.concatenate([maps[:2], maps[:1]]),
        lambda maps: np.where(maps > 0.5, np.nan, maps),
        np.zeros_like,
        np.negative,
    ],
)
def test_other_maps_do_not_agree(maps, wrong, kind):
    assert not compare(kind, maps, wrong(maps)).agrees


def test_a_gradient_may_differ_at_a_single_pixel():
    gradients = np.random.default_rng(0).normal(size=(1, 64, 64))
    changed = gradients.copy()
    changed[0, 3, 4] += 1.0
    assert compare("gradient", gradients, changed).agrees
    assert not compare("map", gradients, changed).agrees


def test_finished_pictures_agree_with_the_map_they_were_made_of(maps):
    large = tf.image.resize(maps[..., None], (28, 40))[..., 0].numpy()
    low, high = large.min((1, 2), keepdims=True), large.max((1, 2), keepdims=True)
    pictures = (large - low) / (high - low)
    assert compare("map", maps, pictures).agrees
    assert not compare("map", maps, pictures[:, ::-1]).agrees


def test_scores_agree_within_five_percent():
    assert compare("score", np.array([10.0, 20.0]), np.array([10.4, 19.2])).agrees
    assert not compare("score", np.array([10.0, 20.0]), np.array([10.4, 18.0])).agrees


# --- Measurement ---------------------------------------------------------------------------------


class Rival:
    """Answers like a worker, and keeps a diary that all share."""

    def __init__(self, name, diary, seconds=0.01, result=None, error=None):
        self.name, self.diary, self.seconds, self.error = name, diary, seconds, error
        self.result = np.eye(4, dtype=np.float32)[None] if result is None else result

    def ask(self, do, **arguments):
        if self.error:
            raise WorkerError(self.error)
        self.diary.append((self.name, do))
        if do == "result":
            np.save(arguments["path"], self.result)
        return {"first_seconds": 1.0, "seconds": self.seconds, "peak_mib": 3.0}


def measured(seconds=1.0, case=CASE, **rivals):
    diary = []
    workers = {name: Rival(name, diary, **options) for name, options in rivals.items()}
    said = []
    row = measure(case, Path("nowhere"), workers, seconds, said.append)
    return row, diary, said


def test_rivals_run_in_turn_and_ratios_are_of_one_round():
    row, diary, _ = measured(floor={"seconds": 0.1}, kvis2={"seconds": 0.12})
    timed = [name for name, do in diary if do == "time"]
    assert timed[:6] == ["floor", "kvis2", "kvis2", "floor", "floor", "kvis2"]
    assert row.ratio("kvis2", "floor") == pytest.approx((1.2, 1.2, 1.2))
    assert len(row.rivals["floor"].seconds) == len(row.rivals["kvis2"].seconds) == 5


def test_the_call_that_tells_the_time_of_fast_ones_is_no_round():
    row, diary, _ = measured(floor={"seconds": 0.01}, kvis2={"seconds": 0.2})
    assert len([1 for name, do in diary if (name, do) == ("kvis2", "time")]) == 4
    assert len(row.rivals["kvis2"].seconds) == len(row.rivals["floor"].seconds) == 3


def test_two_rounds_however_slow():
    row, _, _ = measured(floor={"seconds": 60.0}, kvis2={"seconds": 61.0})
    assert len(row.rivals["kvis2"].seconds) == 2


def test_ratio_is_the_median_of_ratios_within_rounds():
    row = Row(CASE, {"floor": Measured([1.0, 2.0, 4.0]), "kvis2": Measured([1.0, 2.0, 8.0])})
    assert row.ratio("kvis2", "floor") == (1.0, 1.0, 1.5)


def test_who_disagrees_is_not_timed():
    row, diary, said = measured(floor={}, kvis2={}, captum={"result": np.ones((1, 4, 4))})
    assert ("captum", "time") not in diary
    assert row.ratio("captum", "kvis2") is None
    assert "captum is left out: computes something else: correlation 0.0000" in said[0]


def test_a_known_difference_is_timed(monkeypatch):
    monkeypatch.setitem(agreement.KNOWN_DIFFERENCES, ("gradcam", "captum"), "for a reason")
    row, _, said = measured(floor={}, kvis2={}, captum={"result": np.ones((1, 4, 4))})
    assert row.ratio("captum", "kvis2") is not None
    assert not said


def test_who_is_not_there_is_left_out_with_the_reason():
    row, _, said = measured(floor={}, kvis2={}, zennit={"error": "ModuleNotFoundError: zennit"})
    assert row.rivals["zennit"].left_out == "ModuleNotFoundError: zennit"
    assert said == ["  GradCAM small b2: zennit is left out: ModuleNotFoundError: zennit"]
    assert row.ratio("kvis2", "floor") is not None


def test_fails_only_on_a_ratio_to_the_floor_or_a_wrong_result():
    slow, _, _ = measured(floor={"seconds": 1.0}, kvis2={"seconds": 1.6})
    fast, _, _ = measured(floor={"seconds": 100.0}, kvis2={"seconds": 140.0})
    wrong, _, _ = measured(floor={}, kvis2={"result": np.ones((1, 4, 4))})
    absent, _, _ = measured(floor={}, kvis2={"error": "ImportError: no LRP"})
    assert failures([fast, absent], 1.5) == []
    assert failures([slow], 1.5) == ["GradCAM small b2: 1.60 times its floor, above 1.5"]
    assert "computes something else" in failures([wrong], 1.5)[0]


# --- The report ----------------------------------------------------------------------------------


@pytest.fixture
def document():
    rows = [
        measured(
            floor={"seconds": 0.1},
            kvis2={"seconds": 0.11},
            **{"tf-keras-vis": {"seconds": 0.55}, "captum": {"error": "ImportError: captum"}},
        )[0],
        measured(
            case=Case("smoothgrad", "vgg16", 8, {"samples": 50}),
            floor={"seconds": 2.0},
            kvis2={"seconds": 2.5},
            **{"tf-keras-vis": {"seconds": 2.0}},
        )[0],
    ]
    machine = {"date": "2026-01-01", "processor": "abacus", "cores": "2", "memory": "1 GiB"}
    return {
        "machine": machine | {"system": "Linux", "python": "3.11", "load": "0.1"},
        "versions": {"floor": {"keras": "3.0"}},
        "seconds": 60.0,
        "rows": [row.as_json() for row in rows],
        "extras": {
            "imports": {"kvis2_seconds": 0.15, "tensorflow_and_keras_seconds": 4.0},
            "endurance": {"left_out": "ImportError: no kvis2"},
            "growth": {"batch": {"values": [1, 2, 4], "seconds": {"GradCAM": [1.0, 2.0, 4.0]}}},
        },
    }


def test_report_tells_times_goals_and_reasons(document, monkeypatch):
    monkeypatch.setitem(reasons.REASONS, "SmoothGrad 50 vgg16", "a reason")
    page = report.markdown(json.loads(json.dumps(document)))
    assert "| GradCAM small b2 | forward + backward of the head | 100 ms | 1.10 [1.10 to 1.10] "
    assert "| ≤ 1.15 | 5.00 [5.00 to 5.00] |" in page
    assert "- SmoothGrad 50 vgg16 b8: 1.25 floors, goal 1.05: a reason." in page
    assert "tf-keras-vis takes 0.80 times as long, goal 1: not looked into yet." in page
    assert "- GradCAM small b2: captum: ImportError: captum" in page
    assert "- endurance: ImportError: no kvis2" in page
    assert "takes 0.15 s after" in page
    assert "- batch: GradCAM 1.00" in page


def test_resume_measures_only_what_is_missing(tmp_path, monkeypatch, capsys):
    asked = []

    def even(case, *_):
        asked.append(case.name)
        return Row(case, {"floor": Measured([1.0, 2.0]), "kvis2": Measured([1.0, 2.0])})

    monkeypatch.setattr(program, "measure", even)
    monkeypatch.setattr(program.Crew, "at_work", lambda *_: contextlib.nullcontext({}))
    monkeypatch.setattr(program.models, "write", lambda *_: tmp_path)
    path = tmp_path / "numbers.json"
    given = ["--only", "GradCAM small b1", "--no-extras", "--json", str(path)]
    assert program.main(given) == 0
    assert program.main(["--resume", "--only", "GradCAM small", *given[2:]]) == 0
    assert asked == ["GradCAM small b1", "GradCAM small b8", "GradCAM small b32"]
    assert [row["name"] for row in json.loads(path.read_text())["rows"]] == asked
    assert "| GradCAM small b1 |" in capsys.readouterr().out


def test_another_checkout_takes_its_turn_with_its_own_code(tmp_path):
    package = tmp_path / "benchmarks" / "workers"
    package.mkdir(parents=True)
    (package / "kvis2.py").write_text(
        "import json, pathlib\n"
        "input()\n"
        "print(json.dumps({'versions': {'kvis2': pathlib.Path(__file__).parents[2].name}}))\n"
    )
    names = [program.BEFORE]
    with program.Crew(names, tmp_path, fresh=True, before=str(tmp_path)) as crew:
        crew._worker(program.BEFORE)
        assert crew.versions == {program.BEFORE: {"kvis2": tmp_path.name}}


def test_a_slow_first_call_is_told(document):
    assert "the first call" not in report.markdown(document)
    document["rows"][0]["rivals"]["kvis2"]["first_seconds"] = 2.5
    told = "- GradCAM small b2: the first call takes 2.5 times that of the floor, goal 2: "
    assert told in report.markdown(document)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ([0.90, 1.04, 1.06, 1.07, 1.20], "the goal lies within the spread of the rounds"),
        ([1.06, 1.07, 1.08, 1.08, 1.09], "not looked into yet"),
    ],
)
def test_a_goal_may_lie_within_the_spread(document, seconds, said):
    times = {"floor": Measured([1.0] * 5), "kvis2": Measured(seconds)}
    document["rows"] = [Row(Case("smoothgrad", "vgg16", 8, {"samples": 5}), times).as_json()]
    assert f"floors, goal 1.05: {said}." in report.markdown(document)


def test_rows_survive_json(document):
    rows = [Row.from_json(json.loads(json.dumps(each))) for each in document["rows"]]
    assert [row.as_json() for row in rows] == document["rows"]


def test_the_longest_key_gives_the_reason(monkeypatch):
    found = {"GradCAM": "a", "GradCAM small": "b", "GradCAM small / captum": "c", "Grad": "d"}
    monkeypatch.setattr(reasons, "REASONS", found)
    assert reasons.reason("GradCAM vgg16 b1") == "a"
    assert reasons.reason("GradCAM small b1") == "b"
    assert reasons.reason("GradCAM small b1", "captum") == "c"
    assert reasons.reason("GradCAM small b1", "xplique") is None


# --- The cases, models and floors ----------------------------------------------------------------


def test_every_case_is_known_everywhere():
    for case in [*cases.QUICK, *cases.FULL]:
        assert case.method in floors.METHODS
        assert case.model in models.BUILDERS
        assert cases.METHODS[case.method].agreement in agreement.COMPARISONS
    names = [case.name for case in cases.FULL]
    assert len(set(names)) == len(names)
    for method, peer in agreement.KNOWN_DIFFERENCES:
        assert method in cases.PEERS[peer].methods


def test_calibrated_statistics_are_those_of_the_images():
    inputs = keras.Input((6, 6, 3))
    outputs = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, outputs)
    images = 5 + models.smooth_images(16, 6)
    models.randomize(model)
    models.calibrate(model, images)
    seen = model(images, training=False).numpy().reshape(-1, 4)
    np.testing.assert_allclose(seen.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(seen.std(axis=0), 1, atol=1e-3)
    assert model.get_layer("norm").momentum == 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gradcam", {}),
        ("saliency", {}),
        ("guided", {}),
        ("smoothgrad", {"samples": 5}),
        ("integrated", {"samples": 9}),
        ("scorecam", {"channels": 5}),
        ("lrp", {}),
        ("maximization", {"steps": 4}),
        ("deletion", {"steps": 6}),
        ("insertion", {"steps": 6}),
        ("road", {"fractions": 3}),
    ],
)
def test_kvis2_computes_what_the_floor_does(method, options):
    from benchmarks.workers import kvis2 as ours

    images = models.smooth_images(3, 12)
    model = models.plain_cnn(12, channels=4, depth=3, classes=4)
    models.randomize(model)
    classes = model(images).numpy().argmax(axis=1)
    results = []
    for prepare_method in (ours.METHODS[method], floors.METHODS[method]):
        task = Task(model, "conv3", images, classes.astype(np.int32), options)
        prepared = prepare_method(task)
        prepared.run()
        results.append(np.asarray(prepared.result()))
    kind = cases.METHODS[method].agreement
    assert compare(kind, results[1], results[0]).agrees
    assert measurement.METHODS[method].agreement == kind


def test_the_page_of_data_sets_has_the_numbers_that_were_measured():
    from benchmarks import data_sets

    docs = Path(__file__).parents[1] / "docs"
    found = json.loads((docs / "scale.json").read_text(encoding="utf-8"))
    assert data_sets.as_markdown(found) in (docs / "scale.md").read_text(encoding="utf-8")
