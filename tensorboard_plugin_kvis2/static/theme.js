// Light or dark: as TensorBoard is, where that can be known, else as the system is.

/** Keep `data-theme` of the root element right. */
export function followTheme(root) {
  const host = hostBody();
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const choose = () => {
    const isDark = host === null ? system.matches : host.classList.contains("dark-mode");
    root.dataset.theme = isDark ? "dark" : "light";
  };
  choose();
  system.addEventListener("change", choose);
  if (host !== null) {
    new MutationObserver(choose).observe(host, { attributes: true, attributeFilter: ["class"] });
  }
}

/** Return the body of TensorBoard's page around this one, or null where there is none to be seen. */
function hostBody() {
  try {
    const { document: around } = window.parent;
    const isTensorBoard = window.parent !== window && around.querySelector("tb-webapp") !== null;
    return isTensorBoard ? around.body : null;
  } catch {
    return null; // a notebook of another origin
  }
}
