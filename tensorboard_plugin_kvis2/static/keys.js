// What the keyboard does.

import { COLORMAPS } from "./colors.js";
import { element } from "./dom.js";

const HELP = [
  ["← →", "one step back, on"],
  ["Shift ← →", "ten steps back, on"],
  ["Home End", "the first, the last step"],
  ["Space", "play, pause"],
  ["[ ]", "opacity"],
  ["c", "the next colours"],
  ["t", "contour"],
  ["s", "smooth, or cells as they are"],
  ["b", "boxes"],
  ["w", "wipe between two steps"],
  [", .", "the line of the wipe; with Shift the slice"],
  ["+ −", "zoom"],
  ["/", "search"],
  ["Enter", "the focused card at full size"],
  ["n p", "the next, the previous card at full size"],
  ["Esc", "close"],
];

const clipped = (value) => Math.min(Math.max(Math.round(100 * value) / 100, 0), 1);

/** Let keys act on the view. */
export function listenToKeys(view, { search, neighbour, showKeys }) {
  const actions = {
    ArrowLeft: () => view.move(-1),
    ArrowRight: () => view.move(1),
    "Shift ArrowLeft": () => view.move(-10),
    "Shift ArrowRight": () => view.move(10),
    Home: () => view.move(-Infinity),
    End: () => view.move(Infinity),
    " ": () => view.set({ playing: !view.playing }),
    "[": () => view.set({ opacity: clipped(view.opacity - 0.1) }),
    "]": () => view.set({ opacity: clipped(view.opacity + 0.1) }),
    c: () => view.set({ colormap: nextOf(["auto", ...Object.keys(COLORMAPS)], view.colormap) }),
    t: () => view.set({ contour: !view.contour }),
    s: () => view.set({ smooth: !view.smooth }),
    b: () => view.set({ boxes: !view.boxes }),
    w: () => view.set({ wipe: !view.wipe }),
    ",": () => view.set({ wipeShare: clipped(view.wipeShare - 0.05) }),
    ".": () => view.set({ wipeShare: clipped(view.wipeShare + 0.05) }),
    "<": () => view.set({ slice: Math.max(view.slice - 1, 0) }),
    ">": () => view.set({ slice: Math.min(view.slice + 1, view.depth - 1) }),
    "+": () => view.set({ zoom: view.zoom === "fit" ? 1 : Math.min(view.zoom + 1, 8) }),
    "-": () => view.set({ zoom: view.zoom === "fit" || view.zoom === 1 ? "fit" : view.zoom - 1 }),
    "/": search,
    n: () => neighbour(1),
    p: () => neighbour(-1),
    "?": showKeys,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isOwnKey(event)) {
      return;
    }
    const arrow = event.shiftKey && event.key.startsWith("Arrow");
    const action = actions[arrow ? `Shift ${event.key}` : event.key];
    if (action !== undefined) {
      event.preventDefault();
      action();
    }
  });
}

/** Whether the focused element does something of its own with this key. */
function isOwnKey({ target, key }) {
  if (target.matches("input[type=search], input[type=number], select")) {
    return true;
  }
  if (target.matches("input[type=range]")) {
    return key.startsWith("Arrow") || key === "Home" || key === "End";
  }
  return key === " " && target.matches("button, input");
}

function nextOf(names, name) {
  return names[(names.indexOf(name) + 1) % names.length];
}

/** The list of keys, as a dialog. */
export function keysDialog() {
  const rows = HELP.map(([key, does]) => {
    const keys = element("td", {}, element("kbd", { text: key }));
    return element("tr", {}, keys, element("td", { text: does }));
  });
  const close = element("button", { type: "button", text: "Close" });
  const table = element("table", {}, element("tbody", {}, ...rows));
  const heading = element("h2", { text: "Keys" });
  const dialog = element("dialog", { className: "keys", "aria-label": "Keys" }, heading, table, close);
  close.addEventListener("click", () => dialog.close());
  return dialog;
}
