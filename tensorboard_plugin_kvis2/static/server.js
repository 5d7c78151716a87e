// Requests to the plugin's server. All addresses are relative to this file, so that they hold
// below any path that TensorBoard is served at.

const base = new URL("./", import.meta.url);

/** Return the address of a path of the plugin, with its query. */
export function address(path, query = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(query)) {
    url.searchParams.set(name, String(value));
  }
  return url;
}

export async function readJson(path, query) {
  return (await answer(path, query)).json();
}

export async function readBytes(path, query) {
  return (await answer(path, query)).arrayBuffer();
}

export async function readPicture(path, query) {
  const content = await (await answer(path, query)).blob();
  return createImageBitmap(content);
}

async function answer(path, query) {
  const response = await fetch(address(path, query));
  if (!response.ok) {
    const reason = (await response.text()).slice(0, 200);
    throw new Error(`${path}: ${response.status} ${reason}`);
  }
  return response;
}
