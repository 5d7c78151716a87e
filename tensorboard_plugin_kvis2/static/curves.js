// Curves over the steps, with the step that is shown marked.

import { element, svg } from "./dom.js";
import { short } from "./heat.js";

const WIDTH = 240;
const HEIGHT = 84;
const LEFT = 4;
const TOP = 6;
const BOTTOM = 6;

const TITLES = {
  correct: "predicted right",
  label_probability: "p(true class)",
  heat_in_box: "heat in the box",
  drift: "drift since last step",
  peak: "peak so far, own scale",
};

// Values in 0..1 are drawn on that scale, so that curves compare.
const SHARES = new Set(["correct", "label_probability", "heat_in_box", "drift"]);

/**
 * Draw one curve for each line, `{ label, steps, values, place }`, where `place` chooses its colour.
 * A click goes to the step below it.
 */
export function chart(name, lines, view) {
  const steps = view.steps;
  const first = steps[0] ?? 0;
  const span = Math.max((steps[steps.length - 1] ?? 0) - first, 1);
  const [low, high] = name === "peak" ? [0, 1] : rangeOf(name, lines);
  const x = (step) => LEFT + ((step - first) / span) * (WIDTH - 2 * LEFT);
  const y = (value) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img" });
  drawing.append(...[low, (low + high) / 2, high].map((value) => rule(y(value))));
  const scales = lines.map((line) => (name === "peak" ? 1 / rangeOf(name, [line])[1] : 1));
  const height = (value, index) => y(value * scales[index]);
  lines.forEach((line, index) => drawing.append(curve(line, x, (value) => height(value, index))));
  const mark = x(Math.min(Math.max(view.step, first), first + span));
  drawing.append(svg("line", { class: "mark", x1: mark, x2: mark, y1: 0, y2: HEIGHT }));
  const now = lines.map((line) => valueAt(line, view.step));
  lines.forEach((line, index) => {
    if (Number.isFinite(now[index])) {
      const color = `dot line-${line.place % 6}`;
      drawing.append(svg("circle", { class: color, cx: mark, cy: height(now[index], index), r: 3 }));
    }
  });
  const title = TITLES[name] ?? name;
  const written = (value) => (SHARES.has(name) ? value.toFixed(2) : short(value));
  const shown = now.map((value) => (Number.isFinite(value) ? written(value) : "–"));
  drawing.setAttribute("aria-label", `${title} at step ${view.step}: ${shown.join(", ")}`);
  drawing.addEventListener("click", (event) => {
    const bounds = drawing.getBoundingClientRect();
    const share = ((event.clientX - bounds.left) / bounds.width) * WIDTH;
    view.goTo(first + ((share - LEFT) / (WIDTH - 2 * LEFT)) * span);
  });
  const head = element("figcaption", {}, element("span", { className: "curve-name", text: title, title }));
  const numbers = lines.map(({ place }, index) =>
    element("b", { className: `line-${place % 6}`, text: shown[index] }),
  );
  head.append(element("span", { className: "number" }, ...numbers));
  return element("figure", { className: "curve" }, head, drawing);
}

function rangeOf(name, lines) {
  if (SHARES.has(name)) {
    return [0, 1];
  }
  const finite = lines.flatMap(({ values }) => values.filter(Number.isFinite));
  const low = finite.reduce((a, b) => Math.min(a, b), 0);
  return [low, finite.reduce((a, b) => Math.max(a, b), low + 1e-12)];
}

function rule(y) {
  return svg("line", { class: "rule", x1: 0, x2: WIDTH, y1: y, y2: y });
}

function curve({ steps, values, place }, x, y) {
  let path = "";
  let pen = "M";
  steps.forEach((step, index) => {
    if (Number.isFinite(values[index])) {
      path += `${pen}${x(step).toFixed(1)} ${y(values[index]).toFixed(1)}`;
      pen = "L";
    } else {
      pen = "M";
    }
  });
  return svg("path", { class: `trace line-${place % 6}`, d: path });
}

function valueAt({ steps, values }, step) {
  let value = NaN;
  steps.forEach((each, index) => {
    if (each <= step) {
      value = values[index];
    }
  });
  return value;
}

/** Return the curves over all cards of the shown series: `[name, lines]`. */
export function curvesOf(shown) {
  const names = new Set();
  for (const series of shown) {
    series.headers.forEach(({ scalars }) => Object.keys(scalars).forEach((name) => names.add(name)));
  }
  const order = [...Object.keys(TITLES), ...[...names].filter((name) => !(name in TITLES)).sort()];
  return order
    .filter((name) => names.has(name))
    .map((name) => [
      name,
      shown.map((series, place) => ({
        label: `${series.tag} · ${series.run}`,
        steps: series.steps,
        values: series.steps.map((step) => series.headers.get(step)?.scalars[name] ?? NaN),
        place,
      })),
    ]);
}

/** The column of curves beside the cards. */
export class Curves {
  constructor(view) {
    this.view = view;
    this.node = element("aside", { className: "curves", "aria-label": "Curves over all cards" });
    view.follow((names) => {
      if (["shown", "step", "steps", "headers"].some((name) => names.has(name))) {
        this.draw();
      }
    });
  }

  draw() {
    const { view } = this;
    const curves = curvesOf(view.shown);
    const legend = element("ul", { className: "legend" });
    view.shown.forEach((series, place) => {
      const key = element("i", { className: `key line-${place % 6}` });
      const name = element("span", { text: `${series.tag} · ${series.run}` });
      legend.append(element("li", {}, key, name));
    });
    const heading = element("h2", { text: "Means over all cards" });
    this.node.replaceChildren(heading, legend);
    curves.forEach(([name, lines]) => this.node.append(chart(name, lines, view)));
    this.node.hidden = curves.length === 0;
  }
}
