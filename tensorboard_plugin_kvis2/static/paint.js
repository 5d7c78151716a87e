// Heatmaps laid over photographs, as pixels.

import { colorTable } from "./colors.js";
import { contour } from "./field.js";

/**
 * Lay values over a photograph: `(1 - a) * photograph + a * colour`, rounded, in place.
 *
 * The opacity a is `opacity`, times `|value| / limit` where cold regions fade. The colour is that
 * of `value / limit`, in 0..1 or, signed, in -1..1; the table has equal bins.
 */
export function overlay(pixels, points, { limit, signed, colormap, opacity, fade }) {
  const table = colorTable(colormap);
  const entries = table.length / 3;
  const scale = limit > 0 ? 1 / limit : 0;
  for (let point = 0; point < points.length; point++) {
    const share = Math.min(Math.max(points[point] * scale, -1), 1);
    const position = signed ? (share + 1) / 2 : Math.max(share, 0);
    const entry = 3 * Math.min(Math.floor(position * entries), entries - 1);
    const weight = fade ? opacity * Math.abs(share) : opacity;
    for (let channel = 0; channel < 3; channel++) {
      const place = 4 * point + channel;
      pixels[place] = Math.floor((1 - weight) * pixels[place] + weight * table[entry + channel] + 0.5);
    }
  }
}

/** Take the left `share` of the points from `before`, the others from `after`. */
export function wiped(before, after, width, share) {
  const border = Math.round(share * width);
  const points = Float32Array.from(after);
  for (let start = 0; start < points.length; start += width) {
    points.set(before.subarray(start, start + border), start);
  }
  return points;
}

/** Draw a photograph at a size, and return its pixels; without a photograph, plain grey. */
export function photographPixels(photograph, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = photograph === null ? "#808080" : "#ffffff";
  context.fillRect(0, 0, width, height);
  if (photograph !== null) {
    context.imageSmoothingQuality = "high";
    context.drawImage(photograph, 0, 0, width, height);
  }
  return context.getImageData(0, 0, width, height);
}

/** Draw the lines above a heatmap: contour, boxes, and the border of the wipe. */
export function drawMarks(context, { points, size, level, boxes, wipe }) {
  const { width, height } = context.canvas;
  context.clearRect(0, 0, width, height);
  const across = width / size.width;
  const down = height / size.height;
  if (level !== null && points !== null) {
    const path = new Path2D();
    for (const [x0, y0, x1, y1] of contour(points, size.width, size.height, level)) {
      path.moveTo(x0 * across, y0 * down);
      path.lineTo(x1 * across, y1 * down);
    }
    outlined(context, path, "#ffffff");
  }
  if (boxes.length > 0) {
    const path = new Path2D();
    const sharp = (share, side) => Math.min(Math.round(share * side), side - 1) + 0.5;
    for (const [x0, y0, x1, y1] of boxes) {
      const [left, top] = [sharp(x0, width), sharp(y0, height)];
      path.rect(left, top, sharp(x1, width) - left, sharp(y1, height) - top);
    }
    outlined(context, path, "#3ddc84", 1);
  }
  if (wipe !== null) {
    const path = new Path2D();
    path.moveTo(wipe.share * width, 0);
    path.lineTo(wipe.share * width, height);
    outlined(context, path, "#ffffff");
    tag(context, String(wipe.left), "left");
    tag(context, String(wipe.right), "right");
  }
}

/** Write which step a side of the wipe shows, at the foot of it. */
function tag(context, text, side) {
  const unit = Math.max(1, window.devicePixelRatio);
  const { width, height } = context.canvas;
  context.font = `${11 * unit}px system-ui, sans-serif`;
  const wide = context.measureText(text).width + 8 * unit;
  const left = side === "left" ? 0 : width - wide;
  context.fillStyle = "rgb(0 0 0 / 0.6)";
  context.fillRect(left, height - 16 * unit, wide, 16 * unit);
  context.fillStyle = "#ffffff";
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(text, left + 4 * unit, height - 7.5 * unit);
}

/** Draw a line that is seen on bright and on dark pictures. */
function outlined(context, path, color, width = 1.5) {
  const unit = Math.max(1, Math.round(window.devicePixelRatio));
  context.lineJoin = "round";
  context.strokeStyle = "rgb(0 0 0 / 0.55)";
  context.lineWidth = (width + 2) * unit;
  context.stroke(path);
  context.strokeStyle = color;
  context.lineWidth = width * unit;
  context.stroke(path);
}

/**
 * Draw a series: a band of colour for each cell of its map, the signal above it as a line, and
 * the time below.
 */
export function drawSeries(context, { points, signal, channels, length, colors, ink }) {
  const { width, height } = context.canvas;
  const unit = width / points.length;
  const axis = Math.min(18 * Math.max(1, window.devicePixelRatio), height / 4);
  const bottom = height - axis;
  const background = new Uint8ClampedArray(4 * points.length);
  ink.background.forEach((value, channel) => {
    for (let point = 0; point < points.length; point++) {
      background[4 * point + channel] = value;
      background[4 * point + 3] = 255;
    }
  });
  overlay(background, points, colors);
  context.fillStyle = `rgb(${ink.background.join(" ")})`;
  context.fillRect(0, 0, width, height);
  for (let point = 0; point < points.length; point++) {
    const [red, green, blue] = background.subarray(4 * point, 4 * point + 3);
    context.fillStyle = `rgb(${red} ${green} ${blue})`;
    context.fillRect(Math.floor(point * unit), 0, Math.ceil(unit) + 1, bottom);
  }
  if (signal !== null) {
    drawSignal(context, signal, channels, { bottom, ink });
  }
  drawTime(context, length, { bottom, axis, ink });
}

function drawSignal(context, signal, channels, { bottom, ink }) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of signal) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  const length = signal.length / channels;
  const scale = high > low ? (bottom * 0.86) / (high - low) : 0;
  for (let channel = 0; channel < channels; channel++) {
    const path = new Path2D();
    for (let time = 0; time < length; time++) {
      const x = ((time + 0.5) / length) * context.canvas.width;
      const y = bottom * 0.93 - (signal[time * channels + channel] - low) * scale;
      path.lineTo(x, y);
    }
    context.strokeStyle = `rgb(${ink.line.join(" ")})`;
    context.globalAlpha = channel === 0 ? 1 : 0.5;
    context.lineWidth = 1.5 * Math.max(1, window.devicePixelRatio);
    context.stroke(path);
    context.globalAlpha = 1;
  }
}

function drawTime(context, length, { bottom, axis, ink }) {
  const { width } = context.canvas;
  context.fillStyle = `rgb(${ink.line.join(" ")})`;
  context.font = `${Math.round(axis * 0.62)}px system-ui, sans-serif`;
  context.textBaseline = "bottom";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const time = Math.round(share * (length - 1));
    const x = ((time + 0.5) / length) * width;
    context.fillRect(x, bottom, 1, axis / 5);
    context.textAlign = share === 0 ? "left" : share === 1 ? "right" : "center";
    context.fillText(String(time), x, bottom + axis);
  }
}
