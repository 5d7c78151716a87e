"""The Explanations tab in a real browser: what it paints, and how it is driven."""

import base64
import io
import shutil
import time

import numpy as np
import pytest
import tab_logs
from PIL import Image
from tab_logs import EVIL, EVIL_CLASS, HEIGHT, STEPS, WIDTH, expected_overlay, maps_of

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # selenium's sockets
]

READ_CANVAS = """
const canvas = document.querySelectorAll(arguments[0])[arguments[1]];
const { data, width, height } = canvas.getContext("2d").getImageData(
  0, 0, canvas.width, canvas.height);
let text = "";
for (let at = 0; at < data.length; at += 8192) {
  text += String.fromCharCode(...data.subarray(at, at + 8192));
}
return [btoa(text), height, width];
"""
KEEP_DOWNLOADS = """
window.saved = [];
URL.createObjectURL = (blob) => {
  const reader = new FileReader();
  reader.onload = () => window.saved.push(reader.result.split(",")[1]);
  reader.readAsDataURL(blob);
  return "#";
};
HTMLAnchorElement.prototype.click = () => {};
"""


@pytest.fixture(scope="module")
def driver():
    browser, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or chromedriver is None:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for option in ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,900"]:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    tab_logs.write_run(folder / "logs" / "adam", tags=("GradCAM", "LRP"))
    tab_logs.write_run(folder / "logs" / "sgd")
    tab_logs.write_pictures_only(folder / "logs" / "old")
    with tab_logs.served(folder / "logs", folder, prefix="/under/this") as address:
        yield address


@pytest.fixture
def page(driver, address):
    """The tab, at the last step, with the first two series side by side."""
    yield opened(driver, address)
    assert_no_errors(driver)


def opened(driver, address):
    driver.get("about:blank")
    driver.get_log("browser")
    driver.get(f"{address}/data/plugin_entry.html?name=kvis2")
    WebDriverWait(driver, 30).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".card .answer"))
    drawn(driver)
    assert_no_errors(driver)
    return driver


def assert_no_errors(page):
    errors = [each["message"] for each in page.get_log("browser") if each["level"] == "SEVERE"]
    assert [each for each in errors if "/plugin/kvis2/" in each] == []


def drawn(page):
    """Wait until all that is shown has come and has been painted."""
    frame = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))"
    busy = "return document.querySelectorAll('[aria-busy=true]').length"
    deadline = time.monotonic() + 20
    quiet = 0
    while quiet < 3:
        assert time.monotonic() < deadline
        page.execute_async_script(frame)
        time.sleep(0.05)
        quiet = quiet + 1 if page.execute_script(busy) == 0 else 0


def canvas(page, number=0, selector=".card .base"):
    content, height, width = page.execute_script(READ_CANVAS, selector, number)
    return np.frombuffer(base64.b64decode(content), np.uint8).reshape(height, width, 4)[..., :3]


def tick(page, name):
    page.execute_script("document.querySelector(`[data-state=${arguments[0]}]`).click()", name)
    drawn(page)


def go_to(page, step):
    field = page.find_element(By.CSS_SELECTOR, ".bar input[type=number]")
    field.send_keys(str(step), Keys.ENTER)
    page.execute_script("document.activeElement.blur()")
    drawn(page)


def press(page, key):
    page.find_element(By.TAG_NAME, "body").send_keys(key)
    drawn(page)


def slide(page, selector, value):
    page.execute_script(
        "const slider = document.querySelector(arguments[0]);"
        "slider.value = arguments[1]; slider.dispatchEvent(new Event('input'));",
        selector,
        value,
    )
    drawn(page)


def choose(page, label, text):
    """Choose from the drop-down list that has this label."""
    path = f"//label[span[text()='{label}']]/select/option[text()='{text}']"
    page.find_element(By.XPATH, path).click()
    drawn(page)


def step_shown(page):
    return int(page.find_element(By.CSS_SELECTOR, ".bar input[type=number]").get_property("value"))


def assert_painted(painted, expected):
    """Maps of 256 levels and tables of 33 colours may be a few levels of grey apart from exact."""
    error = np.abs(painted - expected)
    assert painted.shape == expected.shape
    assert error.max() <= 5
    assert error.mean() <= 1


def photograph(row=0):
    return tab_logs.photographs(row + 1)[row].astype(np.float64)


def peak(row, steps=STEPS, signed=False):
    return max(np.abs(maps_of(step, 3, signed=signed)[row]).max() for step in steps)


def test_the_first_view_is_the_overlay_of_the_last_step(page):
    for row in range(3):
        for place, signed in enumerate((False, True)):
            colormap = "RdBu_r" if signed else "inferno"
            heat = maps_of(9, 3, signed=signed)[row]
            limit = peak(row, signed=signed)
            expected = expected_overlay(photograph(row), heat, limit, colormap=colormap)
            assert_painted(canvas(page, 2 * row + place), expected)


def test_the_step_the_opacity_and_the_wipe_move_the_pixels(page):
    go_to(page, 5)
    first, later = (maps_of(step, 3)[0] for step in (0, 5))
    assert_painted(canvas(page), expected_overlay(photograph(), later, peak(0)))
    slide(page, "[data-state=opacity]", 30)
    assert_painted(canvas(page), expected_overlay(photograph(), later, peak(0), opacity=0.3))
    slide(page, "[data-state=opacity]", 0)
    np.testing.assert_array_equal(canvas(page), photograph())
    slide(page, "[data-state=opacity]", 100)
    tick(page, "wipe")
    slide(page, "[data-state=wipeShare]", 25)
    after = expected_overlay(photograph(), later, peak(0), opacity=1)
    before = expected_overlay(photograph(), first, peak(0), opacity=1)
    expected = np.concatenate([before[:, : WIDTH // 4], after[:, WIDTH // 4 :]], axis=1)
    assert_painted(canvas(page), expected)


def test_cells_fading_colours_and_scale_are_the_readers_choice(page):
    tick(page, "fade")
    heat = maps_of(9, 3)[0]
    assert_painted(canvas(page), expected_overlay(photograph(), heat, peak(0), fade=False))
    choose(page, "Colours", "Viridis")
    viridis = {"fade": False, "colormap": "viridis"}
    assert_painted(canvas(page), expected_overlay(photograph(), heat, peak(0), **viridis))
    go_to(page, 0)
    heat = maps_of(0, 3)[0]
    assert_painted(canvas(page), expected_overlay(photograph(), heat, peak(0), **viridis))
    choose(page, "Scale", "each map its own")
    assert_painted(canvas(page), expected_overlay(photograph(), heat, heat.max(), **viridis))
    choose(page, "Scale", "one for all cards and steps")
    most = max(peak(row) for row in range(3))
    assert_painted(canvas(page), expected_overlay(photograph(), heat, most, **viridis))
    slide(page, "[data-state=opacity]", 100)
    tick(page, "smooth")
    painted = canvas(page)  # 16 x 16 pixels of one colour for each of the 3 x 4 cells
    cells = painted.reshape(3, HEIGHT // 3, 4, WIDTH // 4, 3)
    assert (cells == cells[:, :1, :, :1]).all()


def test_keys_and_exact_steps(page):
    assert step_shown(page) == 9
    press(page, Keys.ARROW_LEFT)
    assert step_shown(page) == 5
    press(page, Keys.HOME)
    assert step_shown(page) == 0
    press(page, Keys.END)
    assert step_shown(page) == 9
    go_to(page, 6)
    assert step_shown(page) == 5  # the nearest that was logged
    press(page, "]")
    assert (
        page.execute_script("return document.querySelector('[data-state=opacity]').value") == "80"
    )
    press(page, Keys.HOME)
    press(page, " ")
    WebDriverWait(page, 20).until(lambda _: step_shown(page) == 9)
    drawn(page)
    assert_painted(canvas(page), expected_overlay(photograph(), maps_of(9, 3)[0], peak(0), 0.8))


def test_cards_are_filtered_and_sorted(page):
    go_to(page, 5)

    def names():
        return [each.text for each in page.find_elements(By.CSS_SELECTOR, ".card-name")]

    assert names() == ["00 cat", "01 dog", "02 owl"]
    choose(page, "Show", "predicted wrong")
    assert names() == ["00 cat"]
    answer = page.find_element(By.CSS_SELECTOR, ".card .panel").text
    assert "✗ dog 70%" in answer
    assert "why cat" in answer
    assert "was cat" in answer
    choose(page, "Show", "prediction flipped since the last step")
    assert names() == ["00 cat"]
    choose(page, "Show", "all cards")
    choose(page, "Order", "most heat in the box")
    assert names() == ["02 owl", "01 dog", "00 cat"]
    choose(page, "Order", "least sure of the true class")
    assert names()[0] == "00 cat"
    page.find_element(By.CSS_SELECTOR, ".search").send_keys("owl")
    drawn(page)
    assert names() == ["02 owl"]
    assert page.find_element(By.CSS_SELECTOR, "[role=status]").text == "1 of 3 cards"


def test_runs_stand_side_by_side_at_the_same_step(page):
    page.find_element(By.XPATH, "//label[span[text()='GradCAM · sgd']]/input").click()
    drawn(page)
    titles = [each.text for each in page.find_elements(By.CSS_SELECTOR, ".card .panel-title")][:3]
    assert titles == ["GradCAM · adam", "LRP · adam", "GradCAM · sgd"]
    np.testing.assert_array_equal(canvas(page, 0), canvas(page, 2))
    assert (
        "With pictures only, in the Images tab: old." in page.find_element(By.TAG_NAME, "nav").text
    )


def test_a_card_at_full_size_with_its_numbers_and_curves(page):
    page.find_element(By.CSS_SELECTOR, ".card-head").click()
    drawn(page)
    stage = page.find_element(By.CSS_SELECTOR, "dialog .stage")
    assert stage.size == {"width": 7 * WIDTH, "height": 7 * HEIGHT}
    said = page.find_element(By.CSS_SELECTOR, ".said").text
    for words in ["cat", "80%", "late", "3 \u00d7 4", "20%"]:
        assert words in said
    WebDriverWait(page, 10).until(
        lambda d: len(d.find_elements(By.CSS_SELECTOR, "dialog .curve")) == 4
    )
    press(page, Keys.ARROW_LEFT)
    assert "step 5" in page.find_element(By.CSS_SELECTOR, ".detail-step").text
    action = webdriver.ActionChains(page)
    action.move_to_element_with_offset(stage, 1 - 7 * WIDTH // 2, 1 - 7 * HEIGHT // 2).perform()
    value = maps_of(5, 3)[0, 0, 0]
    readout = page.find_element(By.CSS_SELECTOR, ".readout").text
    assert float(readout.split(" ")[0]) == pytest.approx(value, abs=0.01)
    assert readout.endswith("cell 0, 0")


def test_what_one_sees_is_saved_as_png_and_gif(page):
    page.execute_script(KEEP_DOWNLOADS)
    for label in ["PNG", "GIF"]:
        count = len(page.execute_script("return window.saved"))
        page.find_element(By.XPATH, f"//header/button[text()='{label}']").click()
        WebDriverWait(page, 30).until(
            lambda d, count=count: len(d.execute_script("return window.saved")) > count
        )
    still, moving = (
        Image.open(io.BytesIO(base64.b64decode(content)))
        for content in page.execute_script("return window.saved")
    )
    assert still.format == "PNG"
    assert (moving.format, moving.n_frames) == ("GIF", len(STEPS))
    frames = []
    for frame in range(len(STEPS)):
        moving.seek(frame)
        frames.append(np.asarray(moving.convert("RGB")).astype(np.int16))
    assert np.abs(frames[0] - frames[-1]).max() > 30
    # The last frame and the still show the same, but for the palette of 256 colours and the size.
    still = np.asarray(still.convert("RGB").resize(moving.size, Image.BOX)).astype(np.int16)
    assert np.abs(still - frames[-1]).mean() < 6
    assert step_shown(page) == STEPS[-1]


def test_everything_that_can_be_used_has_a_name(page):
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, input, select, [role=img]')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.closest('label')?.textContent"
        " || (e.tagName === 'BUTTON' && e.textContent))).map((e) => e.outerHTML)"
    )
    assert nameless == []
    label = page.find_element(By.CSS_SELECTOR, ".card .stage").get_attribute("aria-label")
    for words in ["00 cat", "GradCAM of adam", "step 9", "cat 80%", "why cat", "in box 20%"]:
        assert words in label


def test_light_and_dark_follow_the_system_and_tensorboard(page, address):
    def theme():
        return page.execute_script("return document.documentElement.dataset.theme")

    for wanted in ["dark", "light"]:
        feature = {"name": "prefers-color-scheme", "value": wanted}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        WebDriverWait(page, 10).until(lambda _, wanted=wanted: theme() == wanted)
    page.get(f"{address}/?darkMode=true#kvis2")
    frames = WebDriverWait(page, 60).until(lambda d: d.find_elements(By.TAG_NAME, "iframe"))
    page.switch_to.frame(frames[0])
    WebDriverWait(page, 30).until(lambda d: d.find_elements(By.CSS_SELECTOR, ".card .answer"))
    assert theme() == "dark"
    page.switch_to.default_content()


def test_names_from_a_log_do_not_run(driver, tmp_path):
    names = [EVIL, f"{EVIL} 1", "javascript:alert(1)"]
    classes = [EVIL_CLASS, EVIL, "owl"]
    tab_logs.write_run(tmp_path / "logs" / "<b>run", (EVIL,), names, classes)
    with tab_logs.served(tmp_path / "logs", tmp_path) as address:
        page = opened(driver, address)
        page.find_element(By.CSS_SELECTOR, ".card-head").click()
        drawn(page)
        assert page.execute_script("return window.hacked") is None
        made = "return document.body.querySelectorAll('img, script, b[onerror]').length"
        assert page.execute_script(made) == 0
        shown = page.find_element(By.TAG_NAME, "body").text
        for name in [EVIL, "<b>run", EVIL_CLASS]:
            assert name in shown


def test_series_and_volumes_have_an_axis_and_a_slider(driver, tmp_path):
    tab_logs.write_series_and_volume(tmp_path / "logs")
    with tab_logs.served(tmp_path / "logs", tmp_path) as address:
        page = opened(driver, address)
        volume = maps_of(9, 1, (5, 3, 4))[0]
        limit = max(np.abs(maps_of(step, 1, (5, 3, 4))).max() for step in STEPS)
        page.find_element(By.XPATH, "//label[starts-with(span, 'Signals')]/input").click()
        drawn(page)
        slices = tab_logs.photographs(5)
        for depth in (0, 3):
            slide(page, "input[aria-label=Slice]", depth)
            expected = expected_overlay(slices[depth].astype(float), volume[depth], limit)
            assert_painted(canvas(page), expected)
        for number in (0, 1):  # the signals in the place of the volumes
            page.find_elements(By.CSS_SELECTOR, ".series-list input")[number].click()
            drawn(page)
        bands = canvas(page)[2]  # above the line of the signal
        heat = maps_of(9, 1, (10,))[0]
        columns = ((np.arange(10) + 0.5) * bands.shape[0] / 10).astype(int)
        weight = 0.7 * heat / max(np.abs(maps_of(step, 1, (10,))).max() for step in STEPS)
        colors = tab_logs.matplotlib.colormaps["inferno"](weight / 0.7)[:, :3] * 255
        expected = (1 - weight[:, None]) * 255 + weight[:, None] * colors
        # The points nearest to the centres of the cells lie half a point beside them.
        assert np.abs(bands[columns] - expected).max() <= 10


def test_logs_without_data_say_what_is_missing(driver, tmp_path):
    tab_logs.write_pictures_only(tmp_path / "logs" / "before")
    with tab_logs.served(tmp_path / "logs", tmp_path) as address:
        driver.get(f"{address}/data/plugin_entry.html?name=kvis2")
        WebDriverWait(driver, 30).until(
            lambda d: "no maps for this tab: before" in d.find_element(By.TAG_NAME, "body").text
        )
        text = driver.find_element(By.TAG_NAME, "body").text
        assert "their pictures are in the Images tab" in text
