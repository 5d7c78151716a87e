// Maps as numbers: from bytes to values, and from the cells of a map to the points of a picture.

/** Decode the bytes of a map: see the format in kvis2's callbacks/tab.py. */
export function decoded(bytes, low, high, signed) {
  const values = new Float32Array(bytes.length);
  const largest = Math.max(-low, high);
  for (let cell = 0; cell < bytes.length; cell++) {
    values[cell] = signed
      ? (largest * (bytes[cell] - 128)) / 127
      : low + ((high - low) * bytes[cell]) / 255;
  }
  return values;
}

/** Return the cells of one slice, and their shape `[height, width]`. */
export function sliceOf(values, grid, slice) {
  if (grid.length !== 3) {
    return { values, shape: grid.length === 1 ? [1, grid[0]] : grid };
  }
  const [depth, height, width] = grid;
  const start = Math.min(slice, depth - 1) * height * width;
  return { values: values.subarray(start, start + height * width), shape: [height, width] };
}

/**
 * Spread the cells of a map over `width` x `height` points: between the centres of the cells
 * linearly where `smooth`, else the cell that a point lies in.
 */
export function spread({ values, shape }, width, height, smooth) {
  const [rows, columns] = shape;
  const across = places(columns, width, smooth);
  const down = places(rows, height, smooth);
  const points = new Float32Array(width * height);
  const line = new Float32Array(columns);
  for (let y = 0; y < height; y++) {
    const above = down.first[y] * columns;
    const below = down.second[y] * columns;
    const part = down.part[y];
    for (let column = 0; column < columns; column++) {
      const value = values[above + column];
      line[column] = value + part * (values[below + column] - value);
    }
    for (let x = 0; x < width; x++) {
      const value = line[across.first[x]];
      points[y * width + x] = value + across.part[x] * (line[across.second[x]] - value);
    }
  }
  return points;
}

/** Where `points` points lie among `cells` cells: two neighbours and the way between them. */
function places(cells, points, smooth) {
  const first = new Int32Array(points);
  const second = new Int32Array(points);
  const part = new Float32Array(points);
  for (let point = 0; point < points; point++) {
    const position = ((point + 0.5) * cells) / points;
    if (smooth) {
      const centre = Math.min(Math.max(position - 0.5, 0), cells - 1);
      first[point] = Math.floor(centre);
      second[point] = Math.min(first[point] + 1, cells - 1);
      part[point] = centre - first[point];
    } else {
      first[point] = second[point] = Math.min(Math.floor(position), cells - 1);
    }
  }
  return { first, second, part };
}

/**
 * Return the line along which |value| is `level`, as segments `[x0, y0, x1, y1]` in points:
 * marching squares, between the centres of the points.
 */
export function contour(points, width, height, level) {
  const segments = [];
  const at = (x, y) => Math.abs(points[y * width + x]) - level;
  for (let y = 0; y + 1 < height; y++) {
    for (let x = 0; x + 1 < width; x++) {
      const corners = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
      const crossings = edgeCrossings(corners, x + 0.5, y + 0.5);
      for (let index = 0; index + 1 < crossings.length; index += 2) {
        segments.push([...crossings[index], ...crossings[index + 1]]);
      }
    }
  }
  return segments;
}

function edgeCrossings([a, b, c, d], x, y) {
  const crossings = [];
  if (a >= 0 !== b >= 0) {
    crossings.push([x + a / (a - b), y]);
  }
  if (b >= 0 !== c >= 0) {
    crossings.push([x + 1, y + b / (b - c)]);
  }
  if (c >= 0 !== d >= 0) {
    crossings.push([x + 1 - c / (c - d), y + 1]);
  }
  if (d >= 0 !== a >= 0) {
    crossings.push([x, y + 1 - d / (d - a)]);
  }
  return crossings;
}
