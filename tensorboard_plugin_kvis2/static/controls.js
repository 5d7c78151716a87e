// The bar with the steps, and the column with all that can be chosen.

import { COLORMAPS, cssGradient } from "./colors.js";
import { check, choices, element, setChoices } from "./dom.js";
import { KEPT, ORDERS, trueClasses } from "./entries.js";
import { paletteOf } from "./heat.js";

const SCALES = [
  ["steps", "one for all steps of a card"],
  ["raw", "one for all cards and steps"],
  ["map", "each map its own"],
];
const GAINS = [1, 2, 4, 8];
const ZOOMS = ["fit", 1, 2, 3, 4, 6, 8];
const SPEEDS = [1, 2, 4, 8, 16];

/** The bar at the top: which step is shown, and what can be saved. */
export function stepBar(view, { savePng, saveGif, showKeys }) {
  const slider = stepSlider(view);
  const exact = stepNumber("Step, exactly", view.step, (step) => view.goTo(step));
  const last = element("span", { className: "quiet of" });
  const play = button("▶", "Play", () => view.set({ playing: !view.playing }));
  const speeds = SPEEDS.map((speed) => [speed, `${speed} steps/s`]);
  const chooseSpeed = (value) => view.set({ speed: Number(value) });
  const speed = choices(speeds, view.speed, chooseSpeed, { "aria-label": "Speed" });
  const status = element("span", { className: "status quiet", role: "status" });
  const node = element("header", { className: "bar" });
  node.append(
    button("|◀", "One step back", () => view.move(-1)),
    play,
    button("▶|", "One step on", () => view.move(1)),
    slider,
    element("label", { className: "step" }, "Step", exact, last),
    speed,
    status,
    button("PNG", "Save the cards in the window as a PNG picture", savePng),
    button("GIF", "Save the cards in the window, at all steps, as a GIF", saveGif),
    button("?", "Keys", showKeys),
  );
  view.followState(() => {
    exact.value = String(view.step);
    last.textContent = `of ${view.steps[view.steps.length - 1] ?? "–"}`;
    play.textContent = view.playing ? "❚❚" : "▶";
    play.setAttribute("aria-label", view.playing ? "Pause" : "Play");
    play.setAttribute("aria-pressed", String(view.playing));
  });
  return { node, status };
}

/** Make a slider over all logged steps. */
export function stepSlider(view) {
  const slider = element("input", { type: "range", min: "0", max: "0", step: "1" });
  slider.className = "steps";
  slider.setAttribute("aria-label", "Step");
  slider.addEventListener("input", () => view.set({ step: view.steps[Number(slider.value)] }));
  const follow = () => {
    slider.max = String(Math.max(view.steps.length - 1, 0));
    slider.value = String(view.stepIndex);
    slider.setAttribute("aria-valuetext", `step ${view.step}`);
  };
  view.followState(follow);
  follow();
  return slider;
}

/** The column of choices. */
export function sideBar(view) {
  const node = element("nav", { className: "side", "aria-label": "What is shown, and how" });
  node.append(
    section("Runs and explainers", seriesList(view)),
    section("Cards", ...cardChoices(view)),
    section("Heatmap", ...heatChoices(view)),
    section("Compare with a step", ...wipeChoices(view)),
  );
  return node;
}

function seriesList(view) {
  const list = element("div", { className: "series-list" });
  const choose = (series, chosen) => {
    const shown = view.series.filter((each) =>
      each === series ? chosen : view.shown.includes(each),
    );
    view.choose(shown);
  };
  view.followState((names) => {
    if (!names.has("series") && !names.has("shown")) {
      return;
    }
    const focused = document.activeElement?.dataset?.series;
    const boxes = view.series.map((series) => {
      const label = `${series.tag} · ${series.run}`;
      const made = check(label, view.shown.includes(series), (on) => choose(series, on));
      made.title = `${label}: ${series.steps.length} steps`;
      made.firstChild.dataset.series = series.key;
      const place = view.shown.indexOf(series);
      if (place >= 0) {
        made.append(element("i", { className: `key line-${place % 6}` }));
      }
      return made;
    });
    list.replaceChildren(...boxes);
    boxes.find((each) => each.firstChild.dataset.series === focused)?.firstChild.focus();
  });
  return list;
}

function cardChoices(view) {
  const search = element("input", {
    type: "search",
    className: "search",
    placeholder: "Name or class",
    "aria-label": "Search by name or class",
    on: { input: () => view.set({ text: search.value }) },
  });
  const label = choices([["", "any class"]], "", (value) => view.set({ label: value }));
  const kept = choices(KEPT, view.kept, (value) => view.set({ kept: value }));
  const sort = choices(ORDERS, view.sort, (value) => view.set({ sort: value }));
  view.followState((names) => {
    if (names.has("shown")) {
      const classes = trueClasses(view.shown);
      const known = classes.some(([index]) => index === view.label);
      setChoices(label, [["", "any class"], ...classes], known ? view.label : "");
      if (!known && view.label !== "") {
        view.set({ label: "" });
      }
    }
  });
  return [search, named("True class", label), named("Show", kept), named("Order", sort)];
}

function heatChoices(view) {
  const colormaps = Object.entries(COLORMAPS).map(([name, { label }]) => [name, label]);
  const maps = [["auto", "automatic"], ...colormaps];
  const zooms = ZOOMS.map((zoom) => [zoom, zoom === "fit" ? "fit" : `${zoom}×`]);
  const setZoom = (value) => view.set({ zoom: value === "fit" ? value : Number(value) });
  const colormap = choices(maps, view.colormap, (value) => view.set({ colormap: value }));
  const zoom = choices(zooms, view.zoom, setZoom);
  const gains = GAINS.map((gain) => [gain, gain === 1 ? "as it is" : `${gain}× as strong`]);
  const gain = choices(gains, view.gain, (value) => view.set({ gain: Number(value) }));
  view.followState(() => {
    colormap.value = view.colormap;
    zoom.value = String(view.zoom);
  });
  return [
    range("Opacity", view, "opacity"),
    named("Colours", colormap),
    legend(view),
    named("Scale", choices(SCALES, view.scale, (value) => view.set({ scale: value }))),
    named("Strength", gain),
    named("Zoom", zoom),
    followed(view, "fade", "cold regions fade"),
    followed(view, "smooth", "smooth between cells"),
    followed(view, "boxes", "boxes"),
    followed(view, "contour", "contour"),
    shownIf(view, () => view.contour, range("Contour at", view, "level")),
    shownIf(view, () => view.depth > 1, sliceSlider(view)),
  ];
}

function wipeChoices(view) {
  const step = stepNumber("Step to compare with", view.wipeStep, (value) => {
    view.set({ wipeStep: nearest(view.steps, value) });
    return view.wipeStep;
  });
  view.followState(() => {
    step.value = String(view.wipeStep);
  });
  const first = named("Left of the line: step", step);
  const position = range("Line at", view, "wipeShare");
  return [
    followed(view, "wipe", "wipe between two steps"),
    shownIf(view, () => view.wipe, first),
    shownIf(view, () => view.wipe, position),
  ];
}

function sliceSlider(view) {
  const slider = element("input", { type: "range", min: "0", step: "1", value: "0" });
  const value = element("output");
  const word = element("span");
  slider.addEventListener("input", () => view.set({ slice: Number(slider.value) }));
  view.followState(() => {
    const name = view.shown.find((series) => series.depthName)?.depthName ?? "slice";
    word.textContent = name === "channel" ? "Channel" : "Slice";
    slider.max = String(view.depth - 1);
    slider.value = String(Math.min(view.slice, view.depth - 1));
    slider.setAttribute("aria-label", word.textContent);
    value.textContent = `${slider.value} of 0–${slider.max}`;
  });
  return element("label", { className: "range" }, word, slider, value);
}

/** The colours from the lowest to the highest value, with a word for the ends. */
function legend(view) {
  const bar = element("div", { className: "gradient" });
  const ends = element("div", { className: "ends quiet" });
  const node = element("div", { className: "scale", role: "img" }, bar, ends);
  view.followState(() => {
    const headers = view.shown.map((series) => series.headers.get(series.steps[0]));
    const signed = headers.some((header) => header?.signed);
    bar.style.backgroundImage = cssGradient(paletteOf(view, signed).colormap);
    const peak = { steps: "card's peak", raw: "peak of all", map: "map's peak" }[view.scale];
    const top = view.gain === 1 ? peak : `${peak} / ${view.gain}`;
    const words = signed ? ["− peak", "0", top] : ["0", top];
    ends.replaceChildren(...words.map((text) => element("span", { text })));
    node.setAttribute("aria-label", `Colours from ${words[0]} to ${words[words.length - 1]}`);
  });
  return node;
}

function section(title, ...children) {
  return element("section", {}, element("h2", { text: title }), ...children);
}

function named(label, control) {
  return element("label", { className: "named" }, element("span", { text: label }), control);
}

function followed(view, name, label) {
  const made = check(label, view[name], (on) => view.set({ [name]: on }));
  made.firstChild.dataset.state = name;
  view.followState(() => {
    made.firstChild.checked = view[name];
  });
  return made;
}

/** A slider of a share, 0..1, in hundredths. */
function range(label, view, name) {
  const slider = element("input", { type: "range", min: "0", max: "100", step: "1" });
  slider.dataset.state = name;
  const value = element("output");
  slider.addEventListener("input", () => view.set({ [name]: Number(slider.value) / 100 }));
  const follow = () => {
    slider.value = String(Math.round(100 * view[name]));
    value.textContent = `${slider.value}%`;
  };
  view.followState(follow);
  follow();
  return element("label", { className: "range" }, element("span", { text: label }), slider, value);
}

/** A field for a step; `choose` returns the step that is logged nearest to what was typed. */
function stepNumber(label, value, choose) {
  const field = element("input", { type: "number", value: String(value), "aria-label": label });
  field.addEventListener("focus", () => field.select());
  field.addEventListener("change", () => {
    field.value = String(choose(field.valueAsNumber));
  });
  return field;
}

function nearest(steps, value) {
  return steps.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a), steps[0] ?? 0);
}

function shownIf(view, condition, node) {
  view.followState(() => {
    node.hidden = !condition();
  });
  node.hidden = !condition();
  return node;
}

export function button(text, title, onClick) {
  return element("button", { type: "button", text, title, "aria-label": title, on: { click: onClick } });
}
