// Which cards are shown, and in which order.

export const ORDERS = [
  ["logged", "as logged"],
  ["name", "by name"],
  ["class", "by true class"],
  ["unsure", "least sure of the true class"],
  ["outside", "least heat in the box"],
  ["inside", "most heat in the box"],
  ["drift", "most drift since the last step"],
];

export const KEPT = [
  ["all", "all cards"],
  ["wrong", "predicted wrong"],
  ["right", "predicted right"],
  ["flipped", "prediction flipped since the last step"],
  ["other", "another class explained than predicted"],
];

// Column, and 1 for ascending or -1 for descending.
const BY_NUMBER = {
  unsure: ["label_probability", 1],
  outside: ["heat_in_box", 1],
  inside: ["heat_in_box", -1],
  drift: ["drift", -1],
};

/** Put cards of one name together: `{ name, rows }`, with a row, or -1, for each of the series. */
export function joined(shown) {
  const byName = new Map();
  shown.forEach((series, place) => {
    series.cards.forEach(({ name }, row) => {
      if (!byName.has(name)) {
        byName.set(name, { name, rows: shown.map(() => -1) });
      }
      byName.get(name).rows[place] = row;
    });
  });
  return [...byName.values()];
}

/** Return the classes that are true of some card, as `[index, name]` by name. */
export function trueClasses(shown) {
  const names = new Map();
  for (const series of shown) {
    for (const { label } of series.cards) {
      if (label !== null) {
        names.set(String(label), series.className(label));
      }
    }
  }
  return [...names].sort((a, b) => a[1].localeCompare(b[1]));
}

/**
 * Filter and sort by the first of the series that has the card. Returns null while the numbers
 * for it are being read.
 */
export function arranged(entries, view) {
  const columns = numbersFor(view);
  if (columns === null) {
    return null;
  }
  const words = view.text.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = entries.filter((entry) => {
    const place = entry.rows.findIndex((row) => row >= 0);
    const { label } = view.shown[place].cards[entry.rows[place]];
    return (
      (view.label === "" || String(label) === view.label) &&
      isKept(view.kept, columns[place], entry.rows[place], label) &&
      words.every((word) => textOf(entry, view.shown[place], columns[place]).includes(word))
    );
  });
  return sorted(kept, columns, view);
}

function numbersFor(view) {
  const columns = view.shown.map((series) => {
    const step = series.stepAt(view.step);
    if (step === null) {
      return { now: {}, before: {} };
    }
    const previous = view.kept === "flipped" ? series.stepBefore(step) : null;
    const now = series.numbers(step);
    const before = previous === null ? now : series.numbers(previous);
    return now === null || before === null ? null : { now, before };
  });
  return columns.includes(null) ? null : columns;
}

function isKept(kept, { now, before }, row, label) {
  const predicted = now.class_0?.[row];
  switch (kept) {
    case "wrong":
      return predicted !== undefined && label !== null && predicted !== label;
    case "right":
      return predicted !== undefined && predicted === label;
    case "flipped":
      return predicted !== before.class_0?.[row];
    case "other":
      return predicted !== undefined && now.explained[row] >= 0 && now.explained[row] !== predicted;
    default:
      return true;
  }
}

function textOf(entry, series, { now }) {
  const row = entry.rows.find((each) => each >= 0);
  const { label } = series.cards[row];
  const predicted = now.class_0?.[row] ?? -1;
  const names = [entry.name, label === null ? "" : series.className(label)];
  return [...names, series.className(predicted)].join(" ").toLowerCase();
}

function sorted(kept, columns, view) {
  if (view.sort === "logged") {
    return kept;
  }
  const keyed = kept.map((entry) => {
    const place = entry.rows.findIndex((row) => row >= 0);
    return { entry, key: keyOf(entry, view.shown[place], columns[place].now, place, view.sort) };
  });
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  keyed.sort((a, b) => compare(a.key, b.key));
  return keyed.map(({ entry }) => entry);
}

function keyOf(entry, series, now, place, sort) {
  const row = entry.rows[place];
  if (sort === "name") {
    return entry.name;
  }
  if (sort === "class") {
    const { label } = series.cards[row];
    return label === null ? "\uffff" : series.className(label);
  }
  const [column, sign] = BY_NUMBER[sort];
  const value = now[column]?.[row] ?? NaN;
  return Number.isNaN(value) ? Number.MAX_VALUE : sign * value; // unknown ones come last
}
