// The cards. Only those near the window exist; the others are empty space.

import { element, oncePerFrame } from "./dom.js";
import { arranged, joined } from "./entries.js";
import { frameOf, Panel } from "./panel.js";

const GAP = 12;
const PADDING = 10; // around a card's content
const HEAD = 24; // the name
const LINES = 3 * 18; // what stands below a picture
const TITLE = 18;
const ROWS_BEYOND = 1; // rows that are kept ready above and below the window

export class Grid {
  /** `open` is called with the place of a card, `readout` as for a panel. */
  constructor(view, { open, readout }) {
    this.view = view;
    this.open = open;
    this.readout = readout;
    this.entries = [];
    this.arranged = [];
    this.cards = new Map(); // by place
    this.space = element("div", { className: "space", role: "list", "aria-label": "Cards" });
    this.empty = element("p", { className: "empty", hidden: true });
    this.node = element("main", { className: "grid", tabIndex: -1 }, this.empty, this.space);
    const draw = oncePerFrame(() => this.draw());
    this.redraw = draw;
    this.node.addEventListener("scroll", draw, { passive: true });
    new ResizeObserver(draw).observe(this.node);
    view.follow((names) => this.follow(names));
  }

  follow(names) {
    if (names.has("shown")) {
      this.entries = joined(this.view.shown);
      this.arranged = []; // the old ones have a row for each of the old series
    }
    if (["shown", "text", "label", "kept", "sort"].some((name) => names.has(name))) {
      this.node.scrollTop = 0;
    }
    this.redraw();
  }

  draw() {
    const { view } = this;
    if (view.shown.length === 0) {
      this.place(0, 0);
      this.space.style.height = "0";
      this.empty.hidden = view.choice === undefined;
      this.empty.textContent = "Choose a run and an explainer.";
      return;
    }
    this.arrange();
    this.measure();
    const count = this.arranged.length;
    this.empty.hidden = count > 0;
    this.empty.textContent = view.busy ? "Reading …" : "No card is like that at this step.";
    this.space.style.height = `${this.tops[this.tops.length - 1]}px`;
    const first = this.rowAt(this.node.scrollTop) - ROWS_BEYOND;
    const last = this.rowAt(this.node.scrollTop + this.node.clientHeight) + ROWS_BEYOND;
    this.place(Math.max(0, first * this.columns), Math.min(count, (last + 1) * this.columns));
    this.onDrawn?.(count);
  }

  /** Filter and sort, where what that depends on has changed. */
  arrange() {
    const { step, text, label, kept, sort } = this.view;
    const key = JSON.stringify([step, text, label, kept, sort]);
    if (this.arrangedBy?.entries === this.entries && this.arrangedBy.key === key) {
      return;
    }
    const found = arranged(this.entries, this.view);
    if (found !== null) {
      this.arranged = found;
      this.arrangedBy = { entries: this.entries, key };
    }
  }

  /** Find how wide a card is, how many fit beside each other, and where each row starts. */
  measure() {
    const { view } = this;
    const key = JSON.stringify([view.zoom, view.shown.map((each) => each.key), devicePixelRatio]);
    if (this.sizeKey !== key) {
      this.sizeKey = key;
      this.sizes = view.shown.map((series) => sizesOf(series, view.zoom));
      this.widths = this.sizes.map((sizes) => Math.max(150, largest(sizes, "width")));
    }
    this.cardWidth = this.widths.reduce((sum, width) => sum + width + PADDING, PADDING) + 2;
    const available = this.node.clientWidth - GAP;
    const columns = Math.max(1, Math.floor(available / (this.cardWidth + GAP)));
    this.columns = columns;
    const [of, at] = this.measured ?? [];
    if (of !== this.arranged || at !== `${key} ${columns}`) {
      this.measured = [this.arranged, `${key} ${columns}`];
      this.tops = this.rowTops();
    }
  }

  /** Return where each row starts, and where the last one ends: a row is as high as it has to be. */
  rowTops() {
    const titles = this.view.shown.length > 1 ? TITLE : 0;
    const tops = [0];
    for (let start = 0; start < this.arranged.length; start += this.columns) {
      const row = this.arranged.slice(start, start + this.columns);
      const height = Math.max(...row.map((entry) => this.pictureHeight(entry)));
      const top = tops[tops.length - 1];
      tops.push(top + HEAD + titles + height + LINES + 2 * PADDING + 6 + GAP);
    }
    return tops;
  }

  pictureHeight({ rows }) {
    return Math.max(...rows.map((row, place) => (row < 0 ? 1 : this.sizes[place][row].height)));
  }

  rowAt(y) {
    let low = 0;
    let high = this.tops.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  place(start, end) {
    for (const [place, card] of this.cards) {
      if (place < start || place >= end) {
        card.node.remove();
        this.cards.delete(place);
        (this.spare ??= []).push(card);
      }
    }
    for (let place = start; place < end; place++) {
      if (!this.cards.has(place)) {
        const card = this.spare?.pop() ?? new Card(this);
        this.cards.set(place, card);
      }
      this.cards.get(place).show(place);
    }
    this.spare?.splice(40);
    this.inOrder(start, end);
  }

  /** Keep the elements in the order in which they are read out. */
  inOrder(start, end) {
    let next = this.space.firstChild;
    for (let place = start; place < end; place++) {
      const { node } = this.cards.get(place);
      if (node === next) {
        next = next.nextSibling;
      } else {
        this.space.insertBefore(node, next);
      }
    }
  }

  /** The cards that are within the window, in order. */
  get visible() {
    const [top, bottom] = [this.node.scrollTop, this.node.scrollTop + this.node.clientHeight];
    return [...this.cards.entries()]
      .sort(([a], [b]) => a - b)
      .filter(([place]) => {
        const row = Math.floor(place / this.columns);
        const middle = (this.tops[row] + this.tops[row + 1]) / 2;
        return middle >= top && middle <= bottom;
      })
      .map(([, card]) => card);
  }
}

/** Return the size of each card; cards of one size share it. */
function sizesOf(series, zoom) {
  const known = new Map();
  return series.cards.map(({ size }, row) => {
    const key = String(size);
    if (!known.has(key)) {
      known.set(key, frameOf(series, row, zoom));
    }
    return known.get(key);
  });
}

function largest(sizes, side) {
  return sizes.reduce((most, size) => Math.max(most, size[side]), 1);
}

class Card {
  constructor(grid) {
    this.grid = grid;
    this.panels = [];
    this.name = element("span", { className: "card-name" });
    this.label = element("span", { className: "card-label quiet" });
    this.button = element("button", {
      className: "card-head",
      type: "button",
      on: { click: () => grid.open(this.at) },
    });
    this.button.append(this.name, this.label);
    this.body = element("div", { className: "card-body" });
    this.node = element("article", { className: "card", role: "listitem" }, this.button, this.body);
    this.body.addEventListener("click", () => {
      if (!grid.view.wipe) {
        grid.open(this.at); // with the wipe, a click moves its line
      }
    });
  }

  show(place) {
    const { grid } = this;
    const { view } = grid;
    this.at = place;
    this.entry = grid.arranged[place];
    const x = (place % grid.columns) * (grid.cardWidth + GAP);
    const row = Math.floor(place / grid.columns);
    const [y, next] = [grid.tops[row], grid.tops[row + 1]];
    Object.assign(this.node.style, {
      transform: `translate(${x}px, ${y}px)`,
      width: `${grid.cardWidth}px`,
      height: `${next - y - GAP}px`,
    });
    this.node.setAttribute("aria-posinset", String(place + 1));
    this.node.setAttribute("aria-setsize", String(grid.arranged.length));
    this.describe(view);
    while (this.panels.length < view.shown.length) {
      const panel = new Panel(grid.readout);
      this.panels.push(panel);
      this.body.append(panel.node);
    }
    this.panels.forEach((panel, index) => {
      panel.node.hidden = index >= view.shown.length;
    });
    view.shown.forEach((series, index) => this.draw(series, index));
  }

  draw(series, index) {
    const { grid } = this;
    const row = this.entry.rows[index];
    const width = grid.widths[index];
    const panel = this.panels[index];
    panel.node.style.width = `${width}px`;
    if (row < 0) {
      panel.drawMissing(series, width, grid.pictureHeight(this.entry));
    } else {
      panel.draw(series, row, grid.view, grid.view.zoom, grid.view.shown.length > 1);
    }
  }

  describe(view) {
    const place = this.entry.rows.findIndex((row) => row >= 0);
    const { label } = view.shown[place].cards[this.entry.rows[place]];
    const known = label === null ? "" : view.shown[place].className(label);
    this.name.textContent = this.entry.name;
    this.label.textContent = this.entry.name.includes(known) ? "" : known;
    this.button.title = `${this.entry.name}: open at full size`;
    this.button.setAttribute("aria-label", `${this.entry.name}, true class ${known || "unknown"}`);
  }
}
