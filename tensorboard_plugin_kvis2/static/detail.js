// One card at full size, with what the model said, and its curves.

import { button, stepSlider } from "./controls.js";
import { chart } from "./curves.js";
import { element, oncePerFrame } from "./dom.js";
import { answerOf, percent, short } from "./heat.js";
import { Panel } from "./panel.js";
import { saveGif, savePng } from "./save.js";

const CURVES = ["label_probability", "heat_in_box", "drift", "peak"];
const WIDEST = 8; // times
const TARGET = 448; // pixels that a small picture is enlarged to

export class Detail {
  constructor(view, { readout, tell }) {
    this.view = view;
    this.readout = readout;
    this.panels = [];
    this.histories = new Map();
    this.zoom = null;
    this.heading = element("h2");
    this.step = element("output", { className: "number" });
    this.pictures = element("div", { className: "pictures" });
    this.said = element("div", { className: "said" });
    this.curves = element("div", { className: "detail-curves" });
    this.node = element("dialog", { className: "detail", "aria-label": "A card at full size" });
    this.node.append(this.head(tell), this.stepLine(), this.content());
    this.node.addEventListener("close", () => {
      this.entry = null;
    });
    const draw = oncePerFrame(() => this.draw());
    view.follow((names) => {
      if (names.has("shown") && this.node.open) {
        this.node.close();
      }
      draw();
    });
  }

  head(tell) {
    const nodes = () => [this.pictures];
    const save = (how) => how(nodes(), this.view, tell).catch((error) => tell(error.message));
    return element(
      "header",
      { className: "detail-head" },
      this.heading,
      button("−", "Smaller", () => this.zoomBy(-1)),
      (this.zoomed = element("output", { className: "number" })),
      button("+", "Larger", () => this.zoomBy(1)),
      button("PNG", "Save this card as a PNG picture", () => save(savePng)),
      button("GIF", "Save this card, at all steps, as a GIF", () => save(saveGif)),
      button("↑", "The card before", () => this.onNeighbour(-1)),
      button("↓", "The next card", () => this.onNeighbour(1)),
      button("✕", "Close", () => this.node.close()),
    );
  }

  stepLine() {
    return element("div", { className: "detail-step" }, stepSlider(this.view), this.step);
  }

  content() {
    const left = element("div", { className: "detail-left" }, this.pictures, this.curves);
    return element("div", { className: "detail-content" }, left, this.said);
  }

  /** Show an entry of the grid. */
  open(entry, place) {
    const { view } = this;
    this.entry = entry;
    this.place = place;
    this.zoom = this.zoom ?? this.startZoom();
    this.heading.textContent = entry.name;
    this.panels = view.shown.map(() => new Panel(this.readout));
    this.pictures.replaceChildren(...this.panels.map((panel) => panel.node));
    this.histories = new Map();
    view.shown.forEach((series, index) => this.readHistory(series, entry.rows[index]));
    if (!this.node.open) {
      this.node.showModal();
    }
    this.draw();
  }

  async readHistory(series, row) {
    if (row < 0) {
      return;
    }
    const { entry } = this;
    try {
      const history = await series.history(row);
      if (this.entry === entry) {
        this.histories.set(series, history);
        this.draw();
      }
    } catch (error) {
      series.failed(error);
    }
  }

  startZoom() {
    const index = this.entry.rows.findIndex((row) => row >= 0);
    const series = this.view.shown[index];
    const size = series.cards[this.entry.rows[index]].size ?? [1, 1];
    return Math.min(Math.max(Math.floor(TARGET / Math.max(...size)), 1), WIDEST);
  }

  zoomBy(count) {
    this.zoom = Math.min(Math.max(this.zoom + count, 1), WIDEST);
    this.draw();
  }

  draw() {
    const { view, entry } = this;
    if (entry === null || !this.node.open) {
      return;
    }
    this.step.textContent = `step ${view.step}`;
    this.zoomed.textContent = `${this.zoom}×`;
    view.shown.forEach((series, index) => {
      const row = entry.rows[index];
      if (row < 0) {
        this.panels[index].drawMissing(series, 150, 150);
      } else {
        this.panels[index].draw(series, row, view, this.zoom, true);
      }
    });
    const answers = view.shown.map((series, index) => this.answerNode(series, entry.rows[index]));
    this.said.replaceChildren(...answers.filter(Boolean));
    this.curves.replaceChildren(...this.curveNodes());
  }

  answerNode(series, row) {
    const { view } = this;
    const answer = row < 0 ? null : answerOf(series, row, view.step);
    if (answer === null) {
      return null;
    }
    const header = series.headers.get(answer.step);
    const bars = answer.top.map(([index, share]) => bar(series.className(index), share, index, answer));
    const facts = element("dl");
    for (const [name, value] of factsOf(series, header, answer)) {
      facts.append(element("dt", { text: name }), element("dd", { text: value }));
    }
    const title = element("h3", { text: `${series.tag} · ${series.run}` });
    return element("section", {}, title, ...bars, facts);
  }

  curveNodes() {
    const { view } = this;
    const shown = view.shown.filter((series) => this.histories.has(series));
    return CURVES.map((name) => [
      name,
      shown.map((series) => ({
        steps: series.steps,
        values: this.histories.get(series)[name] ?? [],
        place: view.shown.indexOf(series),
      })),
    ])
      .filter(([, lines]) => lines.some(({ values }) => values.some(Number.isFinite)))
      .map(([name, lines]) => chart(name, lines, view));
  }
}

function bar(name, share, index, { label, predicted }) {
  const kind = index === label ? "right" : index === predicted ? "wrong" : "other";
  const fill = element("i", { className: `fill ${label === null ? "unknown" : kind}` });
  fill.style.width = `${Math.min(Math.max(100 * share, 0), 100)}%`;
  const track = element("span", { className: "track" }, fill);
  const words = element("span", { className: "bar-name", text: name, title: name });
  const value = element("span", { className: "number", text: percent(share) });
  return element("div", { className: "share" }, words, track, value);
}

function factsOf(series, header, answer) {
  const facts = [];
  if (answer.label !== null) {
    facts.push(["true class", series.className(answer.label)]);
  }
  if (answer.explained >= 0) {
    facts.push(["explains", series.className(answer.explained)]);
  }
  if (header.layer !== null) {
    facts.push(["layer", header.layer]);
  }
  const reduced = header.source.join() !== header.grid.join();
  const from = reduced ? `, averaged from ${header.source.join(" × ")}` : "";
  facts.push(["grid", header.grid.join(" × ") + from]);
  facts.push(["values", `${short(answer.low)} to ${short(answer.high)}`]);
  if (!Number.isNaN(answer.heatInBox)) {
    facts.push(["heat in box", percent(answer.heatInBox)]);
  }
  if (!Number.isNaN(answer.drift)) {
    facts.push(["drift", answer.drift.toFixed(3)]);
  }
  return facts;
}
