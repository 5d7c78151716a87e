// What is to be painted of one card at one step.

import { chosenColormap } from "./colors.js";
import { decoded, sliceOf } from "./field.js";

const FLAT = 0.05; // of its largest value: below that, the spread of a map is no evidence

/**
 * Return the heat of a card at the last step up to `step`: its cells, and the colours for them.
 * Null while it is being read; `{ step: null }` where nothing was logged so early.
 */
export function heatOf(series, row, step, view) {
  const at = series.stepAt(step);
  if (at === null) {
    return { step: null };
  }
  const numbers = series.numbers(at);
  const bytes = series.map(row, at);
  const limit = limitOf(series, row, at, view);
  if (numbers === null || bytes === null || limit === null) {
    return null;
  }
  const { grid, signed } = series.headers.get(at);
  const values = decoded(bytes, numbers.low[row], numbers.high[row], signed);
  const colors = { ...paletteOf(view, signed), limit: limit / view.gain, signed };
  return { step: at, limit, ...sliceOf(values, grid, view.slice), colors };
}

/** Return colormap, opacity and fading as the reader wants them. */
export function paletteOf(view, signed) {
  const colormap = chosenColormap(view.colormap, signed);
  return { colormap, opacity: view.opacity, fade: view.fade };
}

/** Return the value at the end of the colours, or null while it is being read. */
function limitOf(series, row, step, view) {
  if (view.scale === "map") {
    const numbers = series.numbers(step);
    return numbers && Math.max(Math.abs(numbers.low[row]), Math.abs(numbers.high[row]));
  }
  if (view.scale === "steps") {
    const last = series.numbers(series.steps[series.steps.length - 1]);
    return last && last.peak[row];
  }
  const peaks = view.shown.filter((each) => each.tag === series.tag).map(largestPeak);
  return peaks.includes(null) ? null : Math.max(...peaks);
}

function largestPeak(series) {
  const numbers = series.numbers(series.steps[series.steps.length - 1]);
  if (numbers === null) {
    return null;
  }
  numbers.largestPeak ??= numbers.peak.reduce((a, b) => Math.max(a, b), 0);
  return numbers.largestPeak;
}

/** Return what the model said of a card, in words and numbers; null while it is being read. */
export function answerOf(series, row, step) {
  const at = series.stepAt(step);
  const numbers = at === null ? null : series.numbers(at);
  if (numbers === null) {
    return null;
  }
  const { label } = series.cards[row];
  const predicted = numbers.class_0?.[row] ?? -1;
  const before = series.stepBefore(at);
  const previous = before === null ? null : series.numbers(before);
  const largest = Math.max(Math.abs(numbers.low[row]), Math.abs(numbers.high[row]));
  return {
    step: at,
    label,
    predicted,
    probability: numbers.probability_0?.[row] ?? NaN,
    labelProbability: numbers.label_probability[row],
    explained: numbers.explained[row],
    right: label === null || predicted < 0 ? null : label === predicted,
    was: previous?.class_0?.[row] ?? predicted,
    flat: numbers.high[row] - numbers.low[row] <= FLAT * largest,
    heatInBox: numbers.heat_in_box[row],
    drift: numbers.drift[row],
    low: numbers.low[row],
    high: numbers.high[row],
    top: topOf(numbers, row),
  };
}

function topOf(numbers, row) {
  const top = [];
  for (let place = 0; numbers[`class_${place}`] !== undefined; place++) {
    top.push([numbers[`class_${place}`][row], numbers[`probability_${place}`][row]]);
  }
  return top;
}

/** Write a share of 1 as a percentage: whole, and exact where all or nearly nothing is left. */
export function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 1) {
    return "<1%";
  }
  return `${value.toFixed(value > 99 && value < 100 ? 1 : 0)}%`;
}

/** Write a number with three digits that count. */
export function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    return value.toExponential(2);
  }
  return String(Number(value.toPrecision(3)));
}
