// A small encoder of animated GIF files (GIF89a): a palette for all frames, and LZW.

const COLORS = 256;

/**
 * Encode frames of one size.
 *
 * `frames` are ImageData; each is shown for `delay` hundredths of a second, in an endless loop.
 */
export function encodeGif(frames, delay) {
  const { width, height } = frames[0];
  const palette = paletteOf(frames);
  const nearest = nearestIn(palette);
  const out = new Bytes();
  out.text("GIF89a");
  out.short(width);
  out.short(height);
  out.bytes([0xf7, 0, 0]); // a palette of 256 colours
  out.bytes(palette);
  out.bytes([0x21, 0xff, 11]);
  out.text("NETSCAPE2.0");
  out.bytes([3, 1, 0, 0, 0]); // again and again
  for (const frame of frames) {
    out.bytes([0x21, 0xf9, 4, 0]);
    out.short(delay);
    out.bytes([0, 0, 0x2c]);
    [0, 0, width, height].forEach((value) => out.short(value));
    out.bytes([0, 8]);
    out.blocks(compressed(indexed(frame, nearest)));
  }
  out.bytes([0x3b]);
  return out.joined();
}

/** Choose 256 colours by median cut: boxes of colours are halved where most pixels lie far apart. */
function paletteOf(frames) {
  const counts = new Map();
  const every = Math.max(1, Math.floor((frames.length * frames[0].data.length) / 4e6));
  for (const { data } of frames) {
    for (let place = 0; place < data.length; place += 4 * every) {
      const key = bucket(data[place], data[place + 1], data[place + 2]);
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  const boxes = [boxOf([...counts].map(([key, count]) => [...parts(key), count]))];
  while (boxes.length < COLORS) {
    boxes.sort((a, b) => a.weight - b.weight);
    const widest = boxes.pop();
    if (widest.colors.length < 2) {
      boxes.push(widest);
      break;
    }
    boxes.push(...halves(widest));
  }
  const palette = new Uint8Array(3 * COLORS);
  boxes.forEach(({ colors }, index) => palette.set(meanOf(colors), 3 * index));
  return palette;
}

function bucket(red, green, blue) {
  return ((red >> 3) << 10) | ((green >> 3) << 5) | (blue >> 3);
}

function parts(key) {
  return [(key >> 10) * 8 + 4, ((key >> 5) & 31) * 8 + 4, (key & 31) * 8 + 4];
}

function boxOf(colors) {
  let axis = 0;
  let widest = -1;
  for (let each = 0; each < 3; each++) {
    const values = colors.map((color) => color[each]);
    const span = values.reduce((a, b) => Math.max(a, b)) - values.reduce((a, b) => Math.min(a, b));
    if (span > widest) {
      [axis, widest] = [each, span];
    }
  }
  const pixels = colors.reduce((sum, color) => sum + color[3], 0);
  return { colors, axis, weight: colors.length < 2 ? -1 : widest * Math.sqrt(pixels) };
}

function halves({ colors, axis }) {
  colors.sort((a, b) => a[axis] - b[axis]);
  const half = colors.reduce((sum, color) => sum + color[3], 0) / 2;
  let sum = 0;
  let cut = 0;
  while (cut < colors.length - 1 && (cut === 0 || sum < half)) {
    sum += colors[cut][3];
    cut += 1;
  }
  return [boxOf(colors.slice(0, cut)), boxOf(colors.slice(cut))];
}

function meanOf(colors) {
  const pixels = colors.reduce((sum, color) => sum + color[3], 0);
  return [0, 1, 2].map((axis) =>
    Math.round(colors.reduce((sum, color) => sum + color[axis] * color[3], 0) / pixels),
  );
}

/** Return a function from a colour to the place of the nearest in the palette. */
function nearestIn(palette) {
  const known = new Int16Array(32768).fill(-1);
  return (red, green, blue) => {
    const key = bucket(red, green, blue);
    if (known[key] < 0) {
      const [r, g, b] = parts(key);
      let least = Infinity;
      for (let index = 0; index < COLORS; index++) {
        const distance =
          (palette[3 * index] - r) ** 2 +
          (palette[3 * index + 1] - g) ** 2 +
          (palette[3 * index + 2] - b) ** 2;
        if (distance < least) {
          [least, known[key]] = [distance, index];
        }
      }
    }
    return known[key];
  };
}

function indexed({ data }, nearest) {
  const indices = new Uint8Array(data.length / 4);
  for (let pixel = 0; pixel < indices.length; pixel++) {
    indices[pixel] = nearest(data[4 * pixel], data[4 * pixel + 1], data[4 * pixel + 2]);
  }
  return indices;
}

/** LZW with codes of 9 to 12 bits, as GIF has it. */
function compressed(indices) {
  const clear = COLORS;
  const end = COLORS + 1;
  const bits = new Bits();
  let codes = new Map();
  let size = 9;
  let next = end + 1;
  bits.write(clear, size);
  let prefix = indices[0];
  for (let place = 1; place < indices.length; place++) {
    const key = (prefix << 8) | indices[place];
    const code = codes.get(key);
    if (code !== undefined) {
      prefix = code;
      continue;
    }
    bits.write(prefix, size);
    if (next < 4096) {
      codes.set(key, next);
      size = next === 1 << size ? size + 1 : size;
      next += 1;
    } else {
      bits.write(clear, size);
      [codes, size, next] = [new Map(), 9, end + 1];
    }
    prefix = indices[place];
  }
  bits.write(prefix, size);
  // The reader adds a code for what was just written, and may need a bit more.
  bits.write(end, next === 1 << size && size < 12 ? size + 1 : size);
  return bits.joined();
}

class Bytes {
  constructor() {
    this.chunks = [];
  }

  bytes(values) {
    this.chunks.push(Uint8Array.from(values));
  }

  text(value) {
    this.bytes([...value].map((letter) => letter.charCodeAt(0)));
  }

  short(value) {
    this.bytes([value & 255, value >> 8]);
  }

  blocks(content) {
    for (let start = 0; start < content.length; start += 255) {
      const block = content.subarray(start, start + 255);
      this.bytes([block.length]);
      this.chunks.push(block);
    }
    this.bytes([0]);
  }

  joined() {
    const total = this.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    const joined = new Uint8Array(total);
    let place = 0;
    for (const chunk of this.chunks) {
      joined.set(chunk, place);
      place += chunk.length;
    }
    return joined;
  }
}

/** Codes of any number of bits, the lowest bit first. */
class Bits {
  constructor() {
    this.content = new Uint8Array(1 << 16);
    this.length = 0;
    this.held = 0;
    this.count = 0;
  }

  write(code, size) {
    this.held |= code << this.count;
    this.count += size;
    while (this.count >= 8) {
      this.push(this.held & 255);
      this.held >>>= 8;
      this.count -= 8;
    }
  }

  push(byte) {
    if (this.length === this.content.length) {
      const longer = new Uint8Array(2 * this.length);
      longer.set(this.content);
      this.content = longer;
    }
    this.content[this.length] = byte;
    this.length += 1;
  }

  joined() {
    if (this.count > 0) {
      this.push(this.held & 255);
    }
    return this.content.subarray(0, this.length);
  }
}
