// Elements of the page. Text always goes in as text: names in a log are not to be trusted.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Make an element: `on` holds listeners by event, `text` its text; every other entry is a property
 * where it has no dash, and an attribute where it has one.
 */
export function element(name, entries = {}, ...children) {
  const made = document.createElement(name);
  const { on = {}, text, role, ...rest } = entries;
  if (text !== undefined) {
    made.textContent = text;
  }
  if (role !== undefined) {
    made.setAttribute("role", role);
  }
  for (const [key, value] of Object.entries(rest)) {
    if (key.includes("-")) {
      made.setAttribute(key, value);
    } else {
      made[key] = value;
    }
  }
  for (const [event, listener] of Object.entries(on)) {
    made.addEventListener(event, listener);
  }
  made.append(...children);
  return made;
}

/** Make an element of a drawing; all entries are attributes, `text` its text. */
export function svg(name, { text, ...attributes } = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  if (text !== undefined) {
    made.textContent = text;
  }
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

/** Make a drop-down list of `[value, label]` pairs. */
export function choices(pairs, value, onChange, entries = {}) {
  const list = element("select", { ...entries, on: { change: () => onChange(list.value) } });
  setChoices(list, pairs, value);
  return list;
}

/** Replace what a drop-down list offers. */
export function setChoices(list, pairs, value) {
  const options = pairs.map(([each, label]) => element("option", { value: each, text: label }));
  list.replaceChildren(...options);
  list.value = value;
}

/** Make a check box with its label. */
export function check(label, checked, onChange, entries = {}) {
  const box = element("input", { type: "checkbox", checked, ...entries });
  box.addEventListener("change", () => onChange(box.checked));
  return element("label", { className: "check" }, box, element("span", { text: label }));
}

/** Let a listener run at most once for each frame. */
export function oncePerFrame(listener) {
  let waiting = false;
  return () => {
    if (!waiting) {
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        listener();
      });
    }
  };
}
