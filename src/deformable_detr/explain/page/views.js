// What each mode shows on the picture.
const byId = (id) => document.getElementById(id);
const state = { mode: "object", row: 0, layer: data.layers.length - 1, level: 0, x: 0.5, y: 0.5 };
const shown = { levels: new Set(data.model.levels.keys()), heads: new Set(Array(data.model.heads).keys()) };
// The points that are drawn, the greatest weight first, and the one that the arrow keys have reached.
const keys = { points: [], at: -1, query: null };

const currentLayers = () => (state.mode === "token" ? data.encoder.layers : data.layers);

function clearDrawing() {
  for (const layer of drawingLayers) layer.replaceChildren();
  keys.points = [];
}

function stepThroughPoints(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || !keys.points.length) return;
  event.preventDefault();
  keys.at = (Math.max(keys.at, step < 0 ? 0 : -1) + step + keys.points.length) % keys.points.length;
  choosePoint(keys.points[keys.at], keys.query);
}

function choosePoint(point, query) {
  markPoint(point);
  showPoint(point, query, state.layer);
}

/** A disc that is pointed at or tapped, in either picture. */
function chooseDisc(event) {
  const point = event.target.drawn;
  if (!point) return;
  event.stopPropagation();
  if (event.currentTarget === picture) choosePoint(point, point.query);
  else showPoint(point, point.query, state.layer);
}

/** The points or the map of a row; the points that are drawn, the greatest weight first. */
function showReading(layer, index, query) {
  const map = mapOf(layer, index, shown.heads);
  if (map) drawMap(map);
  const points = pointsOf(layer, index);
  const greatest = points.reduce((most, { weight }) => Math.max(most, weight), 1e-30);
  const chosen = points.filter(({ head, level }) => shown.heads.has(head) && shown.levels.has(level));
  if (byId("heat").checked && chosen.length) drawMap(heatOf(chosen));
  else {
    if (query !== null) drawOffsets(row(layer.references, index), chosen, greatest);
    drawPoints(chosen.map((point) => ({ ...point, query })), greatest);
  }
  return chosen.sort((one, other) => other.weight - one.weight);
}

/** As above, for the arrow keys too; beside the picture, how the weight is shared among heads and levels. */
function showMainReading(layer, index, query) {
  Object.assign(keys, { points: showReading(layer, index, query), at: -1, query });
  if (!layer.locations) {
    say("Dense attention", "Dense attention has no sampling points: the map shows the weight of each place, relative "
      + "to the greatest.");
    return;
  }
  say("Attention weights by head and level", weightsTable(pointsOf(layer, index)),
    "Each row sums to 100 %. Point at a disc, tap it, or go through them with the arrow keys to see its numbers.");
}

function showObject() {
  for (const { query, box: [x0, y0, x1, y1] } of data.detections) {
    if (query === data.queries.index[state.row]) continue;
    drawBox({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 }, "#fff", 1, 0.7);
  }
  const layer = data.layers[state.layer];
  if (byId("heard").checked) showHeard(layer);
  else showMainReading(layer, state.row, data.queries.index[state.row]);
  drawAnswer(layer, state.row);
  byId("legend").textContent = answer(layer, state.row);
  const second = byId("compared").value;
  if (second) onSecondPicture(() => showSecond(layer, Number(second)));
}

function showSecond(layer, index) {
  showReading(layer, index, data.queries.index[index]);
  drawAnswer(layer, index);
  byId("second-legend").textContent = answer(layer, index);
}

/** The box after this layer, over that of the layer before, and the reference that this layer started from. */
function drawAnswer(layer, index) {
  const before = data.layers[data.layers.indexOf(layer) - 1];
  if (before) drawBox(rectangle(row(before.boxes, index)), BOX_COLOUR, 1, 0.8, `${side / 90} ${side / 120}`);
  drawBox(rectangle(row(layer.boxes, index)), BOX_COLOUR, 2);
  drawReference(row(layer.references, index));
}

function answer(layer, index) {
  return `Query ${data.queries.index[index]} after layer ${state.layer + 1}: `
    + `${data.classes[row(layer.labels, index)[0]]} ${row(layer.scores, index)[0].toFixed(3)}`;
}

/** The queries that the chosen one listens to, joined to it: the more solid, the more it listens. */
function showHeard(layer) {
  const [queries, weights] = [row(layer.selfAttention.queries, state.row), row(layer.selfAttention.weights, state.row)];
  const own = row(layer.boxes, state.row);
  // It may listen to itself most; the others are drawn relative to the most heard of them.
  const others = weights.filter((_, rank) => queries[rank] !== data.queries.index[state.row]);
  const most = others.reduce((greatest, weight) => Math.max(greatest, weight), 1e-30);
  // The one that is heard most lies on top.
  for (let rank = queries.length - 1; rank >= 0; rank -= 1) {
    const box = row(data.allQueries.boxes, queries[rank]);
    const share = Math.min(1, weights[rank] / most);
    layerOfDrawing.append(element("line", {
      x1: own[0] * data.image.width, y1: own[1] * data.image.height, x2: box[0] * data.image.width,
      y2: box[1] * data.image.height, stroke: OTHER_COLOUR, "stroke-width": side / 120 * share,
      "stroke-opacity": 0.2 + 0.7 * share, "pointer-events": "none",
    }));
    drawBox(rectangle(box), OTHER_COLOUR, 1.2, 0.3 + 0.7 * share);
  }
  showHeardTable(queries, weights);
}

function showToken() {
  const token = nearestToken(state.x, state.y, state.level);
  const layer = data.encoder.layers[state.layer];
  showMainReading(layer, token.index, null);
  drawCross(token.x, token.y);
  let text = `The token in row ${token.row}, column ${token.column} of level ${token.level + 1}: what it reads in `
    + `layer ${state.layer + 1}. The page keeps ${data.encoder.tokens.shape[0]} of the tokens.`;
  if (byId("neighbour").checked) text += showNeighbour(layer, token);
  byId("legend").textContent = text;
}

/** Rings where the neighbour reads; in words how its reading differs. */
function showNeighbour(layer, token) {
  const neighbour = neighbourOf(token);
  if (!neighbour) return " Its neighbour is not kept.";
  drawCross(neighbour.x, neighbour.y, OTHER_COLOUR);
  const [own, its] = [pointsOf(layer, token.index), pointsOf(layer, neighbour.index)];
  if (!own.length) return ` Its neighbour in column ${neighbour.column} gives `
    + `${(100 * differenceOfMaps(layer, token.index, neighbour.index)).toFixed(0)} % of its weight to other places.`;
  drawRings(its.filter(({ head, level }) => shown.heads.has(head) && shown.levels.has(level)));
  const overPoints = (value) => own.reduce((sum, point) => sum + value(point, its[point.place]), 0) / data.model.heads;
  const difference = overPoints((one, other) => Math.abs(one.weight - other.weight) / 2);
  const shift = overPoints((one, other) => one.weight * (other.x - one.x)) * data.image.originalWidth;
  return ` Rings: its neighbour in column ${neighbour.column} gives ${(100 * difference).toFixed(0)} % of its weight `
    + `to other points, which are on average ${Math.abs(shift).toFixed(1)} pixels further `
    + `${shift < 0 ? "left" : "right"}.`;
}

function showPlace() {
  for (const { box } of nearestQueries(state.x, state.y, 5)) drawBox(box, OTHER_COLOUR, 1.2);
  drawCross(state.x, state.y);
  byId("legend").textContent = "The boxes that came nearest.";
  showNearest(state.x, state.y);
}
