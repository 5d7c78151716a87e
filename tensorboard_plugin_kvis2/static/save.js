// Saving what one sees: the cards as a PNG picture, or all their steps as a GIF.

import { encodeGif } from "./gif.js";

const PNG_SCALE = 2;
const GIF_WIDTH = 960;
const MARGIN = 8;
const PATIENCE = 20000; // milliseconds

/** Save `nodes`, elements with canvases and text, as they are. */
export async function savePng(nodes, view) {
  const canvas = drawn(nodes, PNG_SCALE, captionOf(view));
  const content = await canvas.convertToBlob({ type: "image/png" });
  download(content, `explanations step ${view.step}.png`);
}

/** Save `nodes` at every step. Goes through the steps as playing does, and back. */
export async function saveGif(nodes, view, tell) {
  const start = view.step;
  view.set({ playing: false });
  const frames = [];
  try {
    for (const step of view.steps) {
      view.set({ step });
      await settled(nodes, view);
      const bounds = boundsOf(nodes);
      const scale = Math.min(1, GIF_WIDTH / (bounds.right - bounds.left));
      const canvas = drawn(nodes, scale, captionOf(view));
      frames.push(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height));
      tell(`GIF: step ${frames.length} of ${view.steps.length}`);
    }
  } finally {
    view.set({ step: start });
  }
  tell("GIF: encoding");
  await new Promise((resolve) => setTimeout(resolve, 0)); // lets the words be seen
  const content = encodeGif(frames, Math.round(100 / view.speed));
  download(new Blob([content], { type: "image/gif" }), "explanations.gif");
  tell("");
}

/** Wait until everything that is shown has come. */
export async function settled(nodes, view) {
  const end = performance.now() + PATIENCE;
  const isBusy = () =>
    view.busy || nodes.some((node) => node.querySelector('[aria-busy="true"]') !== null);
  do {
    await new Promise(requestAnimationFrame);
    await new Promise(requestAnimationFrame);
    if (performance.now() > end) {
      throw new Error(`step ${view.step} did not come within ${PATIENCE / 1000} s`);
    }
  } while (isBusy());
}

function captionOf(view) {
  const names = view.shown.map((series) => `${series.tag} · ${series.run}`).join(", ");
  return `step ${view.step}${view.wipe ? `, left of the line step ${view.wipeStep}` : ""} — ${names}`;
}

function boundsOf(nodes) {
  const all = nodes.map((node) => node.getBoundingClientRect());
  return {
    left: Math.min(...all.map((each) => each.left)) - MARGIN,
    top: Math.min(...all.map((each) => each.top)) - MARGIN - 20,
    right: Math.max(...all.map((each) => each.right)) + MARGIN,
    bottom: Math.max(...all.map((each) => each.bottom)) + MARGIN,
  };
}

function drawn(nodes, scale, caption) {
  const { left, top, right, bottom } = boundsOf(nodes);
  const width = Math.round((right - left) * scale);
  const canvas = new OffscreenCanvas(width, Math.round((bottom - top) * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(scale, scale);
  context.translate(-left, -top);
  const page = getComputedStyle(document.body);
  context.fillStyle = page.backgroundColor;
  context.fillRect(left, top, right - left, bottom - top);
  context.fillStyle = page.color;
  context.font = `12px ${page.fontFamily}`;
  context.textBaseline = "middle";
  context.fillText(caption, left + MARGIN, top + MARGIN + 6, right - left - 2 * MARGIN);
  nodes.forEach((node) => drawNode(context, node));
  return canvas;
}

function drawNode(context, node) {
  drawBackground(context, node);
  for (const part of node.querySelectorAll("canvas, span, div.line, div.panel-title")) {
    const bounds = part.getBoundingClientRect();
    if (bounds.width === 0 || bounds.height === 0) {
      continue;
    }
    if (part instanceof HTMLCanvasElement) {
      context.imageSmoothingEnabled = getComputedStyle(part).imageRendering !== "pixelated";
      context.drawImage(part, bounds.left, bounds.top, bounds.width, bounds.height);
    } else if (part.childElementCount === 0 && part.textContent !== "") {
      drawBackground(context, part);
      drawText(context, part, bounds);
    }
  }
}

function drawBackground(context, node) {
  const { backgroundColor, borderRadius } = getComputedStyle(node);
  const { left, top, width, height } = node.getBoundingClientRect();
  context.fillStyle = backgroundColor;
  context.beginPath();
  context.roundRect(left, top, width, height, parseFloat(borderRadius) || 0);
  context.fill();
}

function drawText(context, part, bounds) {
  const style = getComputedStyle(part);
  context.save();
  const line = part.closest(".line, .panel-title, .card-head") ?? part;
  const clip = line.getBoundingClientRect();
  context.beginPath();
  context.rect(clip.left, clip.top, clip.width, clip.height);
  context.clip();
  context.fillStyle = style.color;
  context.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
  const left = bounds.left + parseFloat(style.paddingLeft);
  context.fillText(part.textContent.trimEnd(), left, (bounds.top + bounds.bottom) / 2);
  context.restore();
}

function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
