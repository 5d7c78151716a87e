// The page: reads what there is, puts the parts together, and looks for new steps.

import { sideBar, stepBar } from "./controls.js";
import { Curves } from "./curves.js";
import { Detail } from "./detail.js";
import { element } from "./dom.js";
import { Grid } from "./grid.js";
import { keysDialog, listenToKeys } from "./keys.js";
import { saveGif, savePng, settled } from "./save.js";
import { Series } from "./series.js";
import { readJson } from "./server.js";
import { followTheme } from "./theme.js";
import { View } from "./view.js";

const POLL = 10000; // milliseconds between looks for new steps
const AT_FIRST = 2; // series that are shown side by side when the page opens

/** TensorBoard calls this once the module has been loaded. */
export async function render() {
  document.title = "Explanations";
  document.documentElement.lang = "en";
  document.body.replaceChildren(element("p", { className: "note", text: "Reading …" }));
  followTheme(document.documentElement);
  await styled();
  const page = new Page();
  await page.start();
}

function styled() {
  const link = element("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href });
  const loaded = new Promise((resolve) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", resolve);
  });
  document.head.append(element("meta", { name: "viewport", content: "width=device-width" }), link);
  return loaded;
}

class Page {
  constructor() {
    this.view = new View();
    this.shows = false; // whether the cards are on the page yet
  }

  async start() {
    await this.look();
    setInterval(() => {
      if (!document.hidden) {
        this.look();
      }
    }, POLL);
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  /** Read what there is now. */
  async look() {
    try {
      const { series, without } = await readJson("log");
      await this.take(series, without);
    } catch (error) {
      this.fail(error);
    }
  }

  async take(listed, without) {
    const { view } = this;
    const readable = listed.filter((each) => each.readable && each.steps.length > 0);
    if (readable.length === 0) {
      this.note(missingNote(listed, without));
      return;
    }
    if (!this.shows) {
      this.build();
    }
    const known = new Map(view.series.map((series) => [series.key, series]));
    const all = readable.map((each) => {
      const series = known.get(keyOf(each));
      return series?.continues(each.steps) ? series : this.series(each);
    });
    const grown = await Promise.all(all.map((each, place) => each.update(readable[place].steps)));
    if (all.length !== view.series.length || all.some((each) => !view.series.includes(each))) {
      view.set({ series: all });
    }
    this.warn(listed, without);
    const keys = view.shown.map((series) => series.key);
    const shown = all.filter((each) => keys.includes(each.key));
    if (view.choice === undefined) {
      await view.choose(all.slice(0, AT_FIRST));
    } else if (shown.some((each) => !view.shown.includes(each)) || shown.length < keys.length) {
      await view.choose(shown); // a run has gone, or has been written anew
    } else if (grown.includes(true)) {
      view.refresh();
    }
  }

  series(listed) {
    return new Series(
      listed,
      (what = "data") => this.view.tell([what]),
      (error) => this.fail(error),
    );
  }

  build() {
    const { view } = this;
    this.shows = true;
    this.readout = element("div", { className: "readout", hidden: true });
    const readout = (text, event) => this.read(text, event);
    const tell = (text) => this.tell(text);
    this.detail = new Detail(view, { readout, tell });
    this.grid = new Grid(view, { readout, open: (place) => this.open(place) });
    const keys = keysDialog();
    const showKeys = () => keys.showModal();
    const nodes = () => this.grid.visible.map((card) => card.node);
    const save = (how) => () => how(nodes(), view, tell).catch((error) => this.fail(error));
    this.bar = stepBar(view, { savePng: save(savePng), saveGif: save(saveGif), showKeys });
    const side = sideBar(view);
    this.problem = element("p", { className: "problem", role: "alert", hidden: true });
    this.older = element("p", { className: "quiet older", hidden: true });
    side.append(this.older);
    const curves = new Curves(view);
    const middle = element("div", { className: "middle" }, side, this.grid.node, curves.node);
    const { node } = this.bar;
    document.body.replaceChildren(node, this.problem, middle, this.detail.node, keys, this.readout);
    this.grid.onDrawn = (count) => this.count(count);
    this.detail.onNeighbour = (by) => this.open(this.detail.place + by);
    const search = () => side.querySelector(".search").focus();
    listenToKeys(view, { search, neighbour: this.detail.onNeighbour, showKeys });
    view.follow((names) => {
      if (names.has("playing") && view.playing) {
        this.play();
      }
    });
  }

  open(place) {
    const entry = this.grid.arranged[place];
    if (entry !== undefined) {
      this.detail.open(entry, place);
    }
  }

  /** Go on step by step, each once it has come, and read the next ones meanwhile. */
  async play() {
    const { view } = this;
    if (view.stepIndex === view.steps.length - 1) {
      view.move(-Infinity);
    }
    while (view.playing) {
      const due = performance.now() + 1000 / view.speed;
      this.readAhead();
      try {
        await settled([this.grid.node], view);
      } catch (error) {
        this.fail(error);
        view.set({ playing: false });
      }
      const wait = Math.max(0, due - performance.now());
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (view.playing && view.stepIndex === view.steps.length - 1) {
        view.set({ playing: false });
      } else if (view.playing) {
        view.move(1);
      }
    }
  }

  readAhead() {
    const { view, grid } = this;
    const next = view.steps.slice(view.stepIndex + 1, view.stepIndex + 5);
    view.shown.forEach((series, index) => {
      for (const step of next.map((each) => series.stepAt(each)).filter((each) => each !== null)) {
        grid.visible.forEach(({ entry }) => {
          if (entry.rows[index] >= 0) {
            series.want(entry.rows[index], step);
          }
        });
      }
    });
  }

  count(count) {
    const total = this.grid.entries.length;
    const cards = total === 1 ? "1 card" : `${total.toLocaleString("en")} cards`;
    if (!this.told) {
      const words = count === total ? cards : `${count.toLocaleString("en")} of ${cards}`;
      if (this.bar.status.textContent !== words) {
        this.bar.status.textContent = words;
      }
    }
  }

  tell(text) {
    this.told = text;
    this.bar.status.textContent = text;
    if (text === "") {
      this.grid.redraw();
    }
  }

  /** Show what lies under the pointer. */
  read(text, event) {
    this.readout.hidden = text === null;
    if (text !== null) {
      const host = this.detail.node.open ? this.detail.node : document.body;
      if (this.readout.parentNode !== host) {
        host.append(this.readout); // a dialog lies above all that is not in it
      }
      this.readout.textContent = text;
      const left = Math.min(event.clientX + 14, window.innerWidth - this.readout.offsetWidth - 4);
      this.readout.style.transform = `translate(${left}px, ${event.clientY + 18}px)`;
    }
  }

  fail(error) {
    if (!this.shows) {
      this.note([`The log could not be read: ${error.message}`]);
      return;
    }
    this.problem.hidden = false;
    this.problem.textContent = `Something could not be read: ${error.message}`;
  }

  warn(listed, without) {
    const newer = listed.filter((each) => !each.readable).map((each) => `${each.tag} · ${each.run}`);
    const words = [];
    if (newer.length > 0) {
      words.push(`Written in another format, for another version of kvis2: ${newer.join(", ")}.`);
    }
    if (without.length > 0) {
      words.push(`With pictures only, in the Images tab: ${without.join(", ")}.`);
    }
    this.older.hidden = words.length === 0;
    this.older.textContent = words.join(" ");
  }

  note(words) {
    const lines = words.map((text) => element("p", { text }));
    document.body.replaceChildren(element("div", { className: "note" }, ...lines));
    this.shows = false;
  }
}

function keyOf({ run, tag }) {
  return JSON.stringify([run, tag]);
}

function missingNote(listed, without) {
  const words = ["There is nothing to show in this tab yet."];
  if (listed.length > 0) {
    const names = listed.map((each) => `${each.tag} · ${each.run}`).join(", ");
    words.push(`These were written in a format that this version cannot read: ${names}. Install the kvis2 that wrote them, or a newer one.`);
  }
  if (without.length > 0) {
    words.push(
      `These runs hold pictures, but no maps for this tab: ${without.join(", ")}. They were written ` +
        "without it, by an earlier kvis2 or by something else; their pictures are in the Images tab. " +
        "Train again with CamLogger or another explanation logger to see them here.",
    );
  } else {
    words.push(
      "Give model.fit a CamLogger, a SaliencyLogger or an ExplanationLogger, with the log_dir that " +
        "TensorBoard was started with; its steps appear here while the model trains.",
    );
  }
  return words;
}
