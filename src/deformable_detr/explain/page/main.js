// What the reader does, and how it changes the state.
const KEYS = {
  object: "White: reference, and the other answers. Orange: the box after this layer; dashed: one layer earlier. "
    + "Lines: offsets from the reference.",
  heard: "Yellow: the queries that it listens to; the thicker the line, the more. Orange: its box after this layer.",
  token: "White cross: the token. Tap anywhere on the picture to choose another one.",
  why: "White cross: the place. Yellow: the boxes that came nearest to it.",
};

function show() {
  const layers = currentLayers();
  state.layer = Math.min(state.layer, layers.length - 1);
  byId("layer").max = layers.length - 1;
  byId("layer").value = state.layer;
  const stack = state.mode === "token" ? "Encoder" : "Decoder";
  byId("layer-name").textContent = `${stack} layer ${state.layer + 1} of ${layers.length}`;
  byId("layer").setAttribute("aria-valuetext", byId("layer-name").textContent);
  const byHead = byId("by-head").checked;
  byId("heads").classList.toggle("coloured", byHead);
  byId("levels").classList.toggle("coloured", !byHead);
  byId("level-choice").hidden = byId("neighbour-choice").hidden = state.mode !== "token";
  byId("player").hidden = state.mode === "why";
  byId("point-choices").hidden = state.mode === "why";
  for (const id of ["heat-choice", "colour-choice"]) {
    byId(id).hidden = state.mode === "why" || data.model.attention === "dense";
  }
  byId("options-title").parentElement.hidden = state.mode === "why";
  byId("key-line").textContent = KEYS[state.mode === "object" && byId("heard").checked ? "heard" : state.mode];
  byId("heard-choice").hidden = byId("second-choice").hidden = state.mode !== "object";
  byId("heads").hidden = state.mode === "token" && data.model.attention === "dense";    // whose mean is kept
  byId("second").hidden = state.mode !== "object" || !byId("compared").value;
  byId("objects").querySelectorAll("button").forEach((button) =>
    button.setAttribute("aria-pressed", String(state.mode === "object" && Number(button.dataset.row) === state.row)));
  clearDrawing();
  ({ object: showObject, token: showToken, why: showPlace })[state.mode]();
  remember();
}

function chooseMode(mode) {
  if (mode === "token") unpackLayers(data.encoder.layers);
  state.mode = mode;
  document.querySelector(`[name="mode"][value="${mode}"]`).checked = true;
}

/** A click on the picture: an object, a token, or a place where nothing was found. */
function choosePlace(event) {
  const area = picture.getBoundingClientRect();
  const scale = Math.min(area.width / data.image.width, area.height / data.image.height);
  state.x = Math.min(1, Math.max(0, (event.clientX - area.left - (area.width - scale * data.image.width) / 2)
    / (scale * data.image.width)));
  state.y = Math.min(1, Math.max(0, (event.clientY - area.top - (area.height - scale * data.image.height) / 2)
    / (scale * data.image.height)));
  if (state.mode === "object") {
    const found = objectAt(state.x * data.image.width, state.y * data.image.height);
    if (found === null) chooseMode("why");
    else state.row = found;
  }
  show();
}

/** The row of the smallest box of a detection at a place, or null. */
function objectAt(x, y) {
  const there = data.detections.filter(({ box: [x0, y0, x1, y1], query }) =>
    data.queries.index.includes(query) && x >= x0 && x <= x1 && y >= y0 && y <= y1);
  const area = ({ box: [x0, y0, x1, y1] }) => (x1 - x0) * (y1 - y0);
  const smallest = there.sort((one, other) => area(one) - area(other))[0];
  return smallest ? data.queries.index.indexOf(smallest.query) : null;
}

let playing = null;

function stopPlaying() {
  clearInterval(playing);
  playing = null;
  byId("play").setAttribute("aria-label", "Play the layers");
  byId("play").firstChild.textContent = "▶";
}

/** Move through the layers, from the first to the last; pressed again, stop. */
function play() {
  if (playing !== null) {
    stopPlaying();
    return;
  }
  byId("play").setAttribute("aria-label", "Stop");
  byId("play").firstChild.textContent = "■";
  state.layer = 0;
  show();
  playing = setInterval(() => {
    state.layer = Math.min(state.layer + 1, currentLayers().length - 1);
    if (state.layer === currentLayers().length - 1) stopPlaying();
    show();
  }, 1000);
}

const count = (number, one, many = `${one}s`) => `${number} ${number === 1 ? one : many}`;

function start() {
  const { paper, arxiv, layers, numQueries, heads, levels, points, attention } = data.model;
  const source = arxiv && ` (arXiv ${arxiv})`;
  const looks = attention === "dense" ? ", dense attention" : ` × ${levels.length} levels × ${points} points`;
  byId("model").textContent = `${paper}${source}. ${count(data.detections.length, "object")} found by `
    + `${count(numQueries, "query", "queries")} in ${count(layers, "decoder layer")}; ${heads} heads${looks}.`;
  levels.forEach(({ stride, height, width }, level) =>
    byId("level").append(new Option(`${level + 1}: stride ${stride}, ${height} × ${width}`, level)));
  addChoices("levels", levels.map(({ stride }) => `stride ${stride}`), shown.levels);
  addChoices("heads", Array.from({ length: heads }, (_, head) => String(head + 1)), shown.heads);
  document.body.dataset.attention = attention;
  byId("levels").hidden = attention === "dense";
  addObjects();
  startPicture();
  unpackLayers(data.layers);
  startGuide();
  recall();
  byId("layer").addEventListener("input", (event) => {
    stopPlaying();
    state.layer = Number(event.target.value);
    show();
  });
  byId("level").addEventListener("change", (event) => { state.level = Number(event.target.value); show(); });
  for (const id of [...FLAGS, "compared"]) byId(id).addEventListener("change", show);
  byId("play").addEventListener("click", play);
  document.querySelectorAll('[name="mode"]').forEach((choice) =>
    choice.addEventListener("change", () => { chooseMode(choice.value); show(); }));
  for (const svg of [picture, byId("second-picture")]) {
    for (const event of ["pointerover", "click"]) svg.addEventListener(event, chooseDisc);
  }
  picture.addEventListener("click", (event) => { if (!event.target.drawn) choosePlace(event); });
  picture.addEventListener("keydown", stepThroughPoints);
  window.addEventListener("hashchange", () => { recall(); show(); });
  show();
}

start();
