// One picture on a card: the photograph, the heat of one explainer of one run, and what was said.

import { element } from "./dom.js";
import { spread } from "./field.js";
import { answerOf, heatOf, percent, short } from "./heat.js";
import { drawMarks, drawSeries, overlay, photographPixels, wiped } from "./paint.js";

const FIT = 224; // pixels of the longer side
const SERIES_SIZE = { width: 300, height: 120 };

/** Return the size in CSS pixels at which a card is shown, and the points that are painted. */
export function frameOf(series, row, zoom) {
  const header = series.headers.get(series.steps[0]);
  const ratio = Math.max(1, window.devicePixelRatio);
  if (header.grid.length === 1) {
    const scale = zoom === "fit" ? 1 : zoom;
    const width = SERIES_SIZE.width * scale;
    return { width, height: SERIES_SIZE.height, across: Math.round(width * ratio), down: 1 };
  }
  const [height, width] = series.cards[row].size ?? header.grid.slice(-2);
  const longer = Math.max(width, height);
  const scale = zoom === "fit" ? (longer <= FIT ? Math.floor(FIT / longer) : FIT / longer) : zoom;
  const points = Math.min(1, scale * ratio);
  return {
    width: Math.max(1, Math.round(width * scale)),
    height: Math.max(1, Math.round(height * scale)),
    across: Math.max(1, Math.round(width * points)),
    down: Math.max(1, Math.round(height * points)),
  };
}

export class Panel {
  /** `readout` is told what lies under the pointer: `(text, event)`, or `(null)` outside. */
  constructor(readout) {
    this.base = element("canvas", { className: "base" });
    this.marks = element("canvas", { className: "marks", "aria-hidden": "true" });
    this.title = element("div", { className: "panel-title" });
    this.answer = element("div", { className: "line answer" });
    this.why = element("div", { className: "line why" });
    this.facts = element("div", { className: "line facts" });
    this.stage = element("div", { className: "stage", role: "img" }, this.base, this.marks);
    this.node = element("div", { className: "panel" }, this.title, this.stage);
    this.node.append(this.answer, this.why, this.facts);
    this.readout = readout;
    this.shown = null; // what is on the canvas
    this.stage.addEventListener("pointermove", (event) => this.point(event));
    this.stage.addEventListener("pointerdown", (event) => this.point(event));
    this.stage.addEventListener("pointerleave", () => readout(null));
  }

  /** Show a card; returns whether everything has come. */
  draw(series, row, view, zoom, titled) {
    this.view = view;
    this.title.textContent = titled ? `${series.tag} · ${series.run}` : "";
    this.title.title = this.title.textContent;
    this.title.hidden = !titled;
    const frame = frameOf(series, row, zoom);
    this.resize(frame);
    const heat = heatOf(series, row, view.step, view);
    const before = view.wipe ? heatOf(series, row, view.wipeStep, view) : null;
    const answer = answerOf(series, row, view.step);
    const photograph = series.photograph(row, view.slice);
    const hasPhotograph = series.cards[row].photographs[1] > 0;
    const ready =
      heat !== null &&
      (heat.step === null || answer !== null) &&
      (!view.wipe || before !== null) &&
      (photograph !== null || !hasPhotograph);
    this.stage.setAttribute("aria-busy", String(!ready));
    const subject = `${series.key} ${row}`;
    if (ready) {
      this.paint(series, row, view, { frame, heat, before, photograph, answer });
      this.subject = subject;
    } else if (this.subject !== subject) {
      this.clear();
    }
    return ready;
  }

  /** Say that a run does not have this card. */
  drawMissing(series, width, height) {
    this.resize({ width, height, across: 1, down: 1 });
    this.clear();
    this.title.hidden = false;
    this.title.textContent = `${series.tag} · ${series.run}`;
    this.answer.textContent = "not logged in this run";
    this.stage.setAttribute("aria-label", "not logged in this run");
  }

  clear() {
    this.base.getContext("2d").clearRect(0, 0, this.base.width, this.base.height);
    this.marks.getContext("2d").clearRect(0, 0, this.marks.width, this.marks.height);
    [this.answer, this.why, this.facts].forEach((line) => line.replaceChildren());
    this.shown = null;
    this.subject = null;
  }

  resize({ width, height, across, down }) {
    const ratio = Math.max(1, window.devicePixelRatio);
    Object.assign(this.stage.style, { width: `${width}px`, height: `${height}px` });
    const rows = down === 1 && across > 1 ? Math.round(height * ratio) : down;
    setSize(this.base, across, rows);
    setSize(this.marks, Math.round(width * ratio), Math.round(height * ratio));
  }

  paint(series, row, view, { frame, heat, before, photograph, answer }) {
    const { across, down } = frame;
    const parts = [before, heat].map((each) =>
      each !== null && each.step !== null ? spread(each, across, down, view.smooth) : null,
    );
    const nothing = new Float32Array(across * down);
    const after = parts[1] ?? nothing;
    const points = view.wipe ? wiped(parts[0] ?? nothing, after, across, view.wipeShare) : after;
    const colors = heat.colors ?? before?.colors ?? { limit: 0, colormap: "inferno" };
    const context = this.base.getContext("2d");
    const isSeries = heat.shape?.[0] === 1 && series.headers.get(heat.step).grid.length === 1;
    if (isSeries) {
      const [length, channels] = series.cards[row].size ?? [heat.shape[1], 1];
      const signal = photograph === null ? null : photograph;
      drawSeries(context, { points, signal, channels, length, colors, ink: inkOf(this.node) });
    } else {
      const picture = this.pixels(series, row, view.slice, photograph, across, down);
      const opacity = photograph === null ? { ...colors, opacity: 1, fade: false } : colors;
      overlay(picture.data, points, opacity);
      context.putImageData(picture, 0, 0);
    }
    drawMarks(this.marks.getContext("2d"), {
      points: isSeries ? null : points,
      size: { width: across, height: down },
      level: view.contour && colors.limit > 0 ? view.level * colors.limit : null,
      boxes: view.boxes && !isSeries ? sharesOf(series.cards[row]) : [],
      wipe: view.wipe
        ? { share: view.wipeShare, left: before.step ?? "–", right: heat.step ?? "–" }
        : null,
    });
    this.shown = { heat, points, across, down };
    this.describe(series, row, view, answer, heat.limit);
  }

  /** Return a copy of the photograph's pixels, which are made once for each size. */
  pixels(series, row, slice, photograph, across, down) {
    const key = [series.key, row, slice, across, down].join();
    if (this.pixelsKey !== key) {
      this.pixelsKey = key;
      this.plain = photographPixels(photograph, across, down);
    }
    return new ImageData(Uint8ClampedArray.from(this.plain.data), across, down);
  }

  describe(series, row, view, answer, limit) {
    const card = series.cards[row];
    if (answer === null) {
      this.answer.textContent = "nothing logged up to this step";
      this.why.replaceChildren();
      this.facts.replaceChildren();
      this.stage.setAttribute("aria-label", `${card.name}: nothing logged up to this step`);
      return;
    }
    this.answer.replaceChildren(...answerParts(series, answer));
    this.why.replaceChildren(...whyParts(series, answer));
    const facts = [];
    if (answer.step !== view.step) {
      facts.push(`of step ${answer.step}`);
    }
    if (!Number.isNaN(answer.heatInBox)) {
      facts.push(`in box ${percent(answer.heatInBox)}`);
    }
    if (!Number.isNaN(answer.drift)) {
      facts.push(`drift ${answer.drift.toFixed(2)}`);
    }
    if (view.scale !== "map" && limit > 0) {
      const peak = Math.max(Math.abs(answer.low), Math.abs(answer.high));
      facts.push(`peak ${percent(peak / limit)}`);
    }
    this.facts.textContent = facts.join(" · ");
    for (const line of [this.answer, this.why, this.facts]) {
      line.title = line.textContent;
    }
    const words = [this.answer, this.why, this.facts].map((line) => line.textContent);
    const name = `${card.name}, ${series.tag} of ${series.run} at step ${answer.step}`;
    this.stage.setAttribute("aria-label", [name, ...words].filter(Boolean).join("; "));
  }

  point(event) {
    if (this.shown === null || this.shown.heat.step === null) {
      return;
    }
    const { points, across, down, heat } = this.shown;
    const bounds = this.stage.getBoundingClientRect();
    const inside = (share, count) => Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    const left = (event.clientX - bounds.left) / bounds.width;
    const top = (event.clientY - bounds.top) / bounds.height;
    if (this.view.wipe && event.buttons === 1) {
      this.view.set({ wipeShare: Math.min(Math.max(left, 0), 1) });
      return;
    }
    const value = points[inside(top, down) * across + inside(left, across)];
    const [rows, columns] = heat.shape;
    const column = inside(left, columns);
    const cell = rows === 1 ? `cell ${column}` : `cell ${inside(top, rows)}, ${column}`;
    const share = heat.limit > 0 ? ` · ${percent(value / heat.limit)} of the scale` : "";
    this.readout(`${short(value)}${share} · ${cell}`, event);
  }
}

function setSize(canvas, width, height) {
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
}

function sharesOf(card) {
  const [height, width] = card.size ?? [1, 1];
  return card.boxes.map(([x0, y0, x1, y1]) => [x0 / width, y0 / height, x1 / width, y1 / height]);
}

function inkOf(node) {
  const style = getComputedStyle(node);
  const numbers = (name) => style.getPropertyValue(name).trim().split(/\s+/).map(Number);
  return { background: numbers("--plot-rgb"), line: numbers("--ink-rgb") };
}

/** "✓ cat 97%", or "✗ dog 61%" and how likely the true class is held. */
function answerParts(series, { predicted, probability, right, label, labelProbability }) {
  if (predicted < 0) {
    return [];
  }
  const kind = right === null ? "unknown" : right ? "right" : "wrong";
  const sign = { unknown: "", right: "✓ ", wrong: "✗ " }[kind];
  const text = `${sign}${series.className(predicted)} ${percent(probability)}`;
  const parts = [element("span", { className: kind, text })];
  if (right === false) {
    const share = Number.isNaN(labelProbability) ? "" : ` ${percent(labelProbability)}`;
    const name = `true class ${series.className(label)}`;
    parts.push(element("span", { className: "quiet", text: ` · true${share}`, title: name }));
  }
  return parts;
}

/** What is explained, set off where it is not what was predicted; and what is odd of the map. */
function whyParts(series, { explained, predicted, was, flat }) {
  const parts = [];
  if (explained >= 0) {
    const differs = predicted >= 0 && explained !== predicted;
    const text = `why ${series.className(explained)}`;
    parts.push(element("span", { className: differs ? "badge differs" : "quiet", text }));
  }
  if (was !== predicted) {
    parts.push(element("span", { className: "badge flipped", text: `was ${series.className(was)}` }));
  }
  if (flat) {
    parts.push(element("span", { className: "badge flat", text: "flat map" }));
  }
  return parts.flatMap((part, index) => (index === 0 ? [part] : [" ", part]));
}
