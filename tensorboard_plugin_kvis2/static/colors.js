// Colormaps: small tables of anchors, between which colours are interpolated.

// 33 anchors each, evenly spaced from the low to the high end, six hexadecimal digits an anchor.
export const COLORMAPS = {
  inferno: {
    label: "Inferno",
    diverging: false,
    anchors:
      "0000040403120b0724150b37210c4a2e0a5a3c09654a0c6b57106d63146e70196e7d1e6d" +
      "89226a962766a32b61af315cbb3755c63e4dd14644db4f3be35932eb6528f1711ef67f14" +
      "f98d0afb9c06fcab0ffbba1ff9ca32f5d949f2e865f3f586fcffa4",
  },
  viridis: {
    label: "Viridis",
    diverging: false,
    anchors:
      "440154470d6048186a482374472d7b4536814240863f49893b528b375a8d33638d2f6a8e" +
      "2c728e297a8e26818e23898e21908c1f988b1f9f8821a68528ae8031b57b3ebc744cc26c" +
      "5dc9636ece5882d34c96d83fabdc32c0df24d5e21aeae51afde725",
  },
  cividis: {
    label: "Cividis",
    diverging: false,
    anchors:
      "00224e00285b002e6a0433711a386f273e6e32436d3b496c434e6c4b546c52596d5a5f6e" +
      "61656f686a716f70737576767c7b788481798b8778938d789b9376a39a75aba072b3a670" +
      "bbad6cc3b469ccba64d4c15fddc958e6d051efd748f8df3cfee838",
  },
  turbo: {
    label: "Turbo (like jet)",
    diverging: false,
    anchors:
      "30123b392a734040a14456c7466be3467ff64293ff37a7fa29bbec1dcdd818dcc31ee8b0" +
      "31f2994cf97e6bfd648aff4da3fd3cb8f735cced34dee037edd03af8c03afdae35fe982c" +
      "fb8022f56817ec520fe04009d23105c02302ac1701950d017a0403",
  },
  gray: {
    label: "Grey",
    diverging: false,
    anchors:
      "000000080808101010181818202020282828303030383838404040484848505050585858" +
      "6060606868687070707878788080808787878f8f8f9797979f9f9fa7a7a7afafafb7b7b7" +
      "bfbfbfc7c7c7cfcfcfd7d7d7dfdfdfe7e7e7efefeff7f7f7ffffff",
  },
  RdBu_r: {
    label: "Red and blue",
    diverging: true,
    anchors:
      "0530610e41781752901f63a72a71b2347fb93f8dc0529cc86bacd083bcd99ac9e0aed3e6" +
      "c1ddecd3e6f0dfecf3ebf1f5f7f7f6f9eee8fbe6d9fdddcafbceb6f8bda0f5ac8bee9878" +
      "e58268dc6d57d25749c6413ebb2a34ad162a960f267e082367001f",
  },
  berlin: {
    label: "Berlin",
    diverging: true,
    anchors:
      "9eb0ff8caef679abed65a7e2529fd34194c13686ad2e779a286886235a741d4b61183e50" +
      "14313f11252f111a20121214190c09210b032a0e013510004012014c16025a1c076a2610" +
      "7c331d8d412c9c503dac5e4fbc6e61cc7d74dd8d86ee9d9affadad",
  },
};

const ENTRIES = 256;
const tables = new Map();

/** Return the 256 colours of a colormap as bytes, red, green, blue in turn. */
export function colorTable(name) {
  if (!tables.has(name)) {
    tables.set(name, interpolated(COLORMAPS[name].anchors));
  }
  return tables.get(name);
}

/** Name the colormap that "auto" stands for: a diverging one where values have a sign. */
export function chosenColormap(name, signed) {
  return name === "auto" ? (signed ? "RdBu_r" : "inferno") : name;
}

/** Return a CSS gradient of a colormap, for a legend. */
export function cssGradient(name) {
  const table = colorTable(name);
  const stops = [];
  for (let entry = 0; entry < ENTRIES; entry += 15) {
    stops.push(`rgb(${table[3 * entry]} ${table[3 * entry + 1]} ${table[3 * entry + 2]})`);
  }
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

function interpolated(anchors) {
  const last = anchors.length / 6 - 1;
  const table = new Uint8Array(3 * ENTRIES);
  for (let entry = 0; entry < ENTRIES; entry++) {
    const position = (entry / (ENTRIES - 1)) * last;
    const left = Math.min(Math.floor(position), last - 1);
    for (let channel = 0; channel < 3; channel++) {
      const from = component(anchors, left, channel);
      const to = component(anchors, left + 1, channel);
      table[3 * entry + channel] = Math.round(from + (position - left) * (to - from));
    }
  }
  return table;
}

function component(anchors, anchor, channel) {
  const start = 6 * anchor + 2 * channel;
  return parseInt(anchors.slice(start, start + 2), 16);
}
