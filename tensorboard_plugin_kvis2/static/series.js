// What one explainer showed in one run: its cards, its numbers by step, and its maps, each read
// when it is first wanted.

import { Lately } from "./lru.js";
import { readBytes, readJson, readPicture } from "./server.js";

const CARDS_AT_ONCE = 2000;
const ROWS_AT_ONCE = 256;
const STEPS_AT_ONCE = 16;
const KEPT_MAP_BYTES = 32 * 2 ** 20;
const KEPT_NUMBERS = 24; // steps
const KEPT_PHOTOGRAPHS = 160;

export class Series {
  /**
   * `changed` is called when something that was wanted has come, with "headers" when all steps
   * have said what they are; `failed` with an error.
   */
  constructor({ run, tag, steps }, changed, failed) {
    this.run = run;
    this.tag = tag;
    this.key = JSON.stringify([run, tag]);
    this.query = { run, tag };
    this.changed = changed;
    this.failed = failed;
    this.steps = steps.map(([step]) => step);
    // When it was written, in an address, tells the browser's cache that it does not change.
    this.written = new Map(steps);
    this.headers = new Map();
    this.cards = null;
    this.classNames = {};
    this.rowsByName = new Map();
    this.numbersByStep = new Lately(KEPT_NUMBERS);
    this.maps = new Lately(KEPT_MAP_BYTES);
    this.photographs = new Lately(KEPT_PHOTOGRAPHS, (picture) => picture.close?.());
    this.pending = new Set();
    this.refused = new Set(); // what failed is not asked for again and again
    this.wanted = new Map();
    this.loading = null;
  }

  /** Read the list of cards, and what the first and the last step say of themselves; once. */
  load() {
    if (this.loading === null) {
      const ends = [...new Set([this.steps[0], this.steps[this.steps.length - 1]])];
      this.loading = Promise.all([this.readCards(), this.readHeaders(ends)]);
      this.allHeaders = this.loading.then(() => this.readHeaders());
      this.allHeaders.then(() => this.changed("headers"), this.failed);
    }
    return this.loading;
  }

  async readCards() {
    const first = await readJson("probes", { ...this.query, from: 0, count: CARDS_AT_ONCE });
    this.depthName = first.depth;
    this.classNames = first.class_names;
    const pages = [];
    for (let from = first.cards.length; from < first.total; from += CARDS_AT_ONCE) {
      pages.push(readJson("probes", { ...this.query, from, count: CARDS_AT_ONCE }));
    }
    const cards = first.cards.concat(...(await Promise.all(pages)).map((page) => page.cards));
    cards.forEach((card, row) => this.rowsByName.set(card.name, row));
    this.cards = cards;
  }

  /** Read what steps say of themselves; all, where they are not given. */
  async readHeaders(steps) {
    const query = steps === undefined ? this.query : { ...this.query, steps: steps.join() };
    const { headers } = await readJson("headers", query);
    headers.forEach((header) => this.headers.set(header.step, header));
  }

  /** Return what a step says of itself, once that has been read. */
  async headerAt(step) {
    if (!this.headers.has(step)) {
      await this.allHeaders;
    }
    return this.headers.get(step);
  }

  /** Whether a listing is of this run, and not of a later one in the same folder. */
  continues(steps) {
    const listed = new Map(steps);
    return this.steps.every((step) => listed.get(step) === this.written.get(step));
  }

  /** Take the steps that have come since, and say whether there are any. */
  async update(steps) {
    const listed = steps.map(([step]) => step);
    if (listed.join() === this.steps.join()) {
      return false;
    }
    if (this.loading !== null) {
      await this.allHeaders;
      await this.readHeaders();
    }
    this.steps = listed;
    this.written = new Map(steps);
    return true;
  }

  /** Return the last logged step up to this one, or null before the first. */
  stepAt(step) {
    let low = 0;
    let high = this.steps.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.steps[middle] <= step) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low === 0 ? null : this.steps[low - 1];
  }

  /** Return the logged step before this one, or null. */
  stepBefore(step) {
    const index = this.steps.indexOf(step);
    return index > 0 ? this.steps[index - 1] : null;
  }

  className(index) {
    return index < 0 ? "" : (this.classNames[index] ?? `class ${index}`);
  }

  /** Return the numbers of all cards at a step, or null while they are being read. */
  numbers(step) {
    const known = this.numbersByStep.get(step);
    if (known === undefined) {
      this.once(`numbers ${step}`, () => this.readNumbers(step));
      return null;
    }
    return known;
  }

  async readNumbers(step) {
    const buffer = await readBytes("numbers", {
      ...this.query,
      step,
      written: this.written.get(step),
    });
    const { columns, rows } = await this.headerAt(step);
    const numbers = {};
    columns.forEach(([name, kind], place) => {
      const Values = kind === "i" ? Int32Array : Float32Array;
      numbers[name] = new Values(buffer, 4 * rows * place, rows);
    });
    this.numbersByStep.set(step, numbers);
    return numbers;
  }

  /** Read the numbers of one card at every step: an array of values by name. */
  async history(row) {
    const buffer = await readBytes("series", { ...this.query, row });
    const floats = new Float32Array(buffer);
    const integers = new Int32Array(buffer);
    await this.allHeaders;
    const history = {};
    let place = 0;
    for (const step of this.steps) {
      for (const [name, kind] of this.headers.get(step).columns) {
        (history[name] ??= []).push(kind === "i" ? integers[place] : floats[place]);
        place += 1;
      }
    }
    return history;
  }

  /** Return the bytes of a map, or null while they are being read. */
  map(row, step) {
    const known = this.maps.get(`${step} ${row}`);
    if (known === undefined) {
      this.want(row, step);
      return null;
    }
    return known;
  }

  /** Ask for a map; what is asked for until the next task goes in one request. */
  want(row, step) {
    const key = `${step} ${row}`;
    if (this.maps.has(key) || this.pending.has(key) || this.refused.has(key)) {
      return;
    }
    this.pending.add(key);
    if (this.wanted.size === 0) {
      setTimeout(() => this.readWanted(), 0);
    }
    if (!this.wanted.has(step)) {
      this.wanted.set(step, []);
    }
    this.wanted.get(step).push(row);
  }

  async readWanted() {
    const bySteps = new Map();
    for (const [step, rows] of this.wanted) {
      rows.sort((a, b) => a - b);
      for (let start = 0; start < rows.length; start += ROWS_AT_ONCE) {
        const part = rows.slice(start, start + ROWS_AT_ONCE).join();
        bySteps.set(part, [...(bySteps.get(part) ?? []), step]);
      }
    }
    this.wanted = new Map();
    for (const [rows, steps] of bySteps) {
      for (let start = 0; start < steps.length; start += STEPS_AT_ONCE) {
        this.readMaps(rows.split(",").map(Number), steps.slice(start, start + STEPS_AT_ONCE));
      }
    }
  }

  async readMaps(rows, steps) {
    const keys = steps.flatMap((step) => rows.map((row) => `${step} ${row}`));
    try {
      const written = this.written.get(steps[0]);
      const query = { ...this.query, rows: rows.join(), steps: steps.join(), written };
      const bytes = new Uint8Array(await readBytes("maps", query));
      let place = 0;
      for (const step of steps) {
        const cells = (await this.headerAt(step)).grid.reduce((a, b) => a * b, 1);
        for (const row of rows) {
          this.maps.set(`${step} ${row}`, bytes.slice(place, place + cells), cells + 64);
          place += cells;
        }
      }
    } catch (error) {
      keys.forEach((key) => this.refused.add(key));
      this.failed(error);
    } finally {
      keys.forEach((key) => this.pending.delete(key));
    }
    this.changed();
  }

  /** Return the picture or the signal below a map, null where there is none or not yet. */
  photograph(row, slice) {
    const [first, count] = this.cards[row].photographs;
    if (count === 0) {
      return null;
    }
    const place = first + (count === 1 ? 0 : Math.min(slice, count - 1));
    const known = this.photographs.get(place);
    if (known === undefined) {
      this.once(`photograph ${place}`, () => this.readPhotograph(place));
      return null;
    }
    return known;
  }

  async readPhotograph(place) {
    const rank = this.headers.get(this.steps[0]).grid.length;
    const query = { ...this.query, place, written: this.written.get(this.steps[0]) };
    const photograph =
      rank === 1
        ? new Float32Array(await readBytes("photograph", query))
        : await readPicture("photograph", query);
    this.photographs.set(place, photograph);
  }

  /** Do something that is not being done already, and tell when it is done. */
  async once(key, read) {
    if (this.pending.has(key) || this.refused.has(key)) {
      return;
    }
    this.pending.add(key);
    try {
      await read();
    } catch (error) {
      this.refused.add(key);
      this.failed(error);
    } finally {
      this.pending.delete(key);
    }
    this.changed();
  }

  /** Whether something is on its way. */
  get busy() {
    return this.pending.size > 0;
  }
}
