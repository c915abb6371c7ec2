"use strict";
// The data of the page; docs/explain.md describes them.
const data = JSON.parse(document.getElementById("explanation").textContent);

const TYPES = { float32: Float32Array, uint8: Uint8Array, uint16: Uint16Array };
const unpackedArrays = new Map();

/** A packed array as { values, shape }, decoded once. */
function unpack(packed) {
  if (!unpackedArrays.has(packed)) {
    const letters = atob(packed.data);
    const bytes = new Uint8Array(letters.length);
    for (let place = 0; place < letters.length; place += 1) bytes[place] = letters.charCodeAt(place);
    const raw = new TYPES[packed.dtype](bytes.buffer);
    let values = raw;
    if (packed.scale !== 1 || packed.offset !== 0) {
      values = new Float32Array(raw.length);
      for (let place = 0; place < raw.length; place += 1) values[place] = raw[place] * packed.scale + packed.offset;
    }
    unpackedArrays.set(packed, { values, shape: packed.shape });
  }
  return unpackedArrays.get(packed);
}

/** Decode all layers ahead, so that the slider does not wait for it. */
function unpackLayers(layers) {
  for (const layer of layers) {
    for (const part of Object.values(layer)) if (part?.data) unpack(part);
  }
}

/** The values of one row of the first axis. */
function row(packed, index) {
  const { values, shape } = unpack(packed);
  const size = shape.slice(1).reduce((product, extent) => product * extent, 1);
  return values.subarray(index * size, (index + 1) * size);
}

/** What a row of a layer reads: its points, each { head, level, point, x, y, weight }; none for dense attention. */
function pointsOf(layer, index) {
  if (!layer.locations) return [];
  const [, heads, levels, points] = layer.weights.shape;
  const locations = row(layer.locations, index);
  const weights = row(layer.weights, index);
  return Array.from(weights, (weight, place) => ({
    head: Math.floor(place / (levels * points)),
    level: Math.floor(place / points) % levels,
    point: place % points,
    x: locations[2 * place], y: locations[2 * place + 1], weight, place,
  })).filter(({ head }) => head < heads);
}

/** Dense attention of a row, summed over the chosen heads: { values, height, width } from 0 to 1, or null. */
function mapOf(layer, index, chosenHeads) {
  if (!layer.attention) return null;
  const [, heads, height, width] = layer.attention.shape;
  const shares = row(layer.attention, index);
  const peaks = row(layer.peaks, index);
  const values = new Float32Array(height * width);
  for (let head = 0; head < heads; head += 1) {
    if (heads > 1 && !chosenHeads.has(head)) continue;
    for (let cell = 0; cell < values.length; cell += 1) {
      values[cell] += shares[head * values.length + cell] * peaks[head];
    }
  }
  const most = values.reduce((greatest, value) => Math.max(greatest, value), 1e-30);
  return { values: values.map((value) => value / most), height, width };
}

/** A box cxcywh in [0, 1] as { x, y, width, height } in pixels of the shown image. */
function rectangle([x, y, width, height]) {
  return {
    x: (x - width / 2) * data.image.width, y: (y - height / 2) * data.image.height,
    width: width * data.image.width, height: height * data.image.height,
  };
}

/** The queries nearest to a place in [0, 1]: those whose last boxes cover it first, among equals the best score. */
function nearestQueries(x, y, count) {
  const scores = unpack(data.allQueries.scores).values;
  return Array.from(scores, (score, query) => {
    const box = rectangle(row(data.allQueries.boxes, query));
    const across = Math.max(box.x - x * data.image.width, x * data.image.width - box.x - box.width, 0);
    const down = Math.max(box.y - y * data.image.height, y * data.image.height - box.y - box.height, 0);
    return { query, score, label: row(data.allQueries.labels, query)[0], box, distance: Math.hypot(across, down) };
  }).sort((one, other) => one.distance - other.distance || other.score - one.score).slice(0, count);
}

/** The kept token of a level that is nearest to a place in [0, 1]; its row, and its centre. */
function nearestToken(x, y, level) {
  const { validWidth, validHeight } = data.model.levels[level];
  let best = null;
  for (let index = 0; index < data.encoder.tokens.shape[0]; index += 1) {
    const [itsLevel, down, across] = row(data.encoder.tokens, index);
    if (itsLevel !== level) continue;
    const centre = { x: (across + 0.5) / validWidth, y: (down + 0.5) / validHeight };
    const distance = Math.hypot((centre.x - x) * data.image.width, (centre.y - y) * data.image.height);
    if (!best || distance < best.distance) best = { index, level, row: down, column: across, ...centre, distance };
  }
  return best;
}

/** The kept token on the right or the left of one, or null. */
function neighbourOf(token) {
  for (const step of [1, -1]) {
    const index = token.index + step;
    if (index < 0 || index >= data.encoder.tokens.shape[0]) continue;
    const [level, down, across] = row(data.encoder.tokens, index);
    if (level !== token.level || down !== token.row || across !== token.column + step) continue;
    const { validWidth, validHeight } = data.model.levels[level];
    return { index, column: across, x: (across + 0.5) / validWidth, y: (down + 0.5) / validHeight };
  }
  return null;
}

/** The share of their weight that two maps of dense attention, each the mean of all heads, give to other places. */
function differenceOfMaps(layer, one, other) {
  const [first, second] = [one, other].map((index) =>
    Array.from(row(layer.attention, index), (share) => share * row(layer.peaks, index)[0]));
  return first.reduce((sum, weight, cell) => sum + Math.abs(weight - second[cell]), 0) / 2;
}
