// The state of the page, its controls, and what follows from them.
const byId = (id) => document.getElementById(id);
const state = { mode: "object", row: 0, layer: data.layers.length - 1, level: 0, x: 0.5, y: 0.5 };
const shown = { levels: new Set(data.model.levels.keys()), heads: new Set(Array(data.model.heads).keys()) };

const currentLayers = () => (state.mode === "token" ? data.encoder.layers : data.layers);

function show() {
  const layers = currentLayers();
  state.layer = Math.min(state.layer, layers.length - 1);
  byId("layer").max = layers.length - 1;
  byId("layer").value = state.layer;
  byId("layer-name").textContent = `${state.mode === "token" ? "Encoder" : "Decoder"} layer ${state.layer} of ${layers.length - 1}`;
  byId("level-choice").hidden = state.mode !== "token";
  byId("objects").querySelectorAll("button").forEach((button) =>
    button.setAttribute("aria-pressed", String(state.mode === "object" && Number(button.dataset.row) === state.row)));
  layerOfDrawing.replaceChildren();
  keys.points = [];
  ({ object: showObject, token: showToken, why: showPlace })[state.mode]();
  remember();
}

/** The points that are drawn, the greatest weight first, and the one that the arrow keys have reached. */
const keys = { points: [], at: -1, query: null };

function stepThroughPoints(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!step || !keys.points.length) return;
  event.preventDefault();
  keys.at = (keys.at + step + keys.points.length) % keys.points.length;
  choosePoint(keys.points[keys.at], keys.query);
}

function choosePoint(point, query) {
  markPoint(point);
  showPoint(point, query, state.layer);
}

function showReading(layer, index, query) {
  const map = mapOf(layer, index, shown.heads);
  if (map) drawMap(map);
  const points = pointsOf(layer, index);
  const greatest = points.reduce((most, { weight }) => Math.max(most, weight), 1e-30);
  const chosen = points.filter(({ head, level }) => shown.heads.has(head) && shown.levels.has(level));
  drawPoints(chosen, greatest, (point, event) => {
    event.stopPropagation();
    choosePoint(point, query);
  });
  Object.assign(keys, { points: chosen.sort((one, other) => other.weight - one.weight), at: -1, query });
  if (state.mode !== "why") say("A point", points.length ? "Point at a disc, tap it, or go through them with the arrow keys: its numbers are shown here." : "Dense attention has no points: the heat map is the weight of each place.");
}

function showObject() {
  const layer = data.layers[state.layer];
  const query = data.queries.index[state.row];
  if (byId("heard").checked) showHeard(layer);
  showReading(layer, state.row, query);
  const box = rectangle(row(layer.boxes, state.row));
  drawBox(box, BOX_COLOUR, 2);
  drawReference(row(layer.references, state.row));
  byId("legend").textContent = `Query ${query} after layer ${state.layer}: `
    + `${data.classes[row(layer.labels, state.row)[0]]} ${row(layer.scores, state.row)[0].toFixed(3)}`;
}

/** The queries that the chosen one listens to, as boxes: the more opaque, the more it listens. */
function showHeard(layer) {
  const [queries, weights] = [row(layer.selfAttention.queries, state.row), row(layer.selfAttention.weights, state.row)];
  queries.forEach((query, rank) => drawBox(rectangle(row(data.allQueries.boxes, query)), "#f0e442", 1.2,
    weights[rank] / weights[0]));
}

function showToken() {
  const token = nearestToken(state.x, state.y, state.level);
  showReading(data.encoder.layers[state.layer], token.index, null);
  drawCross(token.x, token.y);
  byId("legend").textContent = `The token in row ${token.row}, column ${token.column} of level ${token.level}: what it `
    + `reads in layer ${state.layer}. The page keeps ${data.encoder.tokens.shape[0]} of the tokens.`;
}

function showPlace() {
  for (const { box } of nearestQueries(state.x, state.y, 5)) drawBox(box, "#f0e442", 1.2);
  drawCross(state.x, state.y);
  byId("legend").textContent = "The boxes that came nearest.";
  showNearest(state.x, state.y);
}

/** The view in the address, so that it can be shared. In the frame of a notebook there is no address to change. */
function remember() {
  const query = data.queries.index[state.row];
  const words = { ...state, query };
  delete words.row;
  try {
    history.replaceState(null, "", `#${new URLSearchParams(words)}`);
  } catch { /* a frame without an address */ }
}

function recall() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (name, least, most) => {
    const value = Number(words.get(name));
    if (words.has(name) && value >= least && value <= most) state[name] = value;
  };
  if (["object", "token", "why"].includes(words.get("mode"))) state.mode = words.get("mode");
  number("x", 0, 1);
  number("y", 0, 1);
  number("level", 0, data.model.levels.length - 1);
  number("layer", 0, currentLayers().length - 1);
  state.layer = Math.floor(state.layer);
  state.level = Math.floor(state.level);
  state.row = Math.max(0, data.queries.index.indexOf(Number(words.get("query") ?? data.queries.index[0])));
  document.querySelector(`[name="mode"][value="${state.mode}"]`).checked = true;
  byId("level").value = state.level;
}

function choosePlace(event) {
  const area = picture.getBoundingClientRect();
  const scale = Math.min(area.width / data.image.width, area.height / data.image.height);
  state.x = Math.min(1, Math.max(0, (event.clientX - area.left - (area.width - scale * data.image.width) / 2)
    / (scale * data.image.width)));
  state.y = Math.min(1, Math.max(0, (event.clientY - area.top - (area.height - scale * data.image.height) / 2)
    / (scale * data.image.height)));
  if (state.mode === "object") {
    const there = data.detections.findIndex(({ box: [x0, y0, x1, y1], query }) => data.queries.index.includes(query)
      && state.x * data.image.width >= x0 && state.x * data.image.width <= x1
      && state.y * data.image.height >= y0 && state.y * data.image.height <= y1);
    if (there < 0) return;
    state.row = data.queries.index.indexOf(data.detections[there].query);
  }
  show();
}

function addChoices(id, texts, chosen) {
  texts.forEach(([text, colour], index) => {
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(index);
      else chosen.delete(index);
      show();
    });
    const label = document.createElement("label");
    label.append(box);
    if (colour) {
      const key = document.createElement("span");
      key.className = "key";
      key.style.background = colour;
      label.append(key);
    }
    label.append(text);
    byId(id).append(label);
  });
}

function addObjects() {
  const found = new Map(data.detections.map((each) => [each.query, each]));
  data.queries.index.forEach((query, index) => {
    const button = document.createElement("button");
    const last = data.layers[data.layers.length - 1];
    const label = data.classes[row(last.labels, index)[0]];
    button.type = "button";
    button.dataset.row = index;
    button.textContent = `${label} ${row(last.scores, index)[0].toFixed(3)}${found.has(query) ? "" : " (not found)"}`;
    button.addEventListener("click", () => {
      Object.assign(state, { mode: "object", row: index });
      document.querySelector('[name="mode"][value="object"]').checked = true;
      show();
    });
    byId("objects").append(button);
  });
}

let playing = null;

/** Move through the layers, from the first to the last. */
function play() {
  clearInterval(playing);
  state.layer = 0;
  show();
  playing = setInterval(() => {
    if (state.layer >= currentLayers().length - 1) clearInterval(playing);
    else state.layer += 1;
    show();
  }, 700);
}

function start() {
  const { paper, layers, numQueries, heads, points, attention } = data.model;
  const looks = attention === "dense" ? `${heads} heads, dense attention` : `${heads} heads × ${data.model.levels.length} levels × ${points} points`;
  byId("model").textContent = `${paper}: ${data.detections.length} found by ${numQueries} queries in ${layers} decoder layers; ${looks}`;
  data.model.levels.forEach(({ stride, height, width }, level) =>
    byId("level").append(new Option(`${level}: stride ${stride}, ${height} × ${width}`, level)));
  addChoices("levels", data.model.levels.map(({ stride }, level) => [`stride ${stride}`, LEVEL_COLOURS[level % LEVEL_COLOURS.length]]), shown.levels);
  addChoices("heads", Array.from({ length: heads }, (_, head) => [String(head), null]), shown.heads);
  byId("levels").hidden = attention === "dense";
  addObjects();
  startPicture();
  recall();
  byId("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); show(); });
  byId("level").addEventListener("change", (event) => { state.level = Number(event.target.value); show(); });
  byId("heard").addEventListener("change", show);
  byId("play").addEventListener("click", play);
  document.querySelectorAll('[name="mode"]').forEach((choice) =>
    choice.addEventListener("change", () => { state.mode = choice.value; show(); }));
  picture.addEventListener("click", choosePlace);
  picture.addEventListener("keydown", stepThroughPoints);
  window.addEventListener("hashchange", () => { recall(); show(); });
  show();
}

start();
