// The controls of the page, the address, and how both change the state.
function show() {
  const layers = currentLayers();
  state.layer = Math.min(state.layer, layers.length - 1);
  byId("layer").max = layers.length - 1;
  byId("layer").value = state.layer;
  const stack = state.mode === "token" ? "Encoder" : "Decoder";
  byId("layer-name").textContent = `${stack} layer ${state.layer} of ${layers.length - 1}`;
  const byHead = byId("by-head").checked;
  byId("heads").classList.toggle("coloured", byHead);
  byId("levels").classList.toggle("coloured", !byHead);
  byId("level-choice").hidden = byId("neighbour-choice").hidden = state.mode !== "token";
  byId("heard-choice").hidden = byId("second-choice").hidden = state.mode !== "object";
  byId("heads").hidden = state.mode === "token" && data.model.attention === "dense";    // whose mean is kept
  byId("second").hidden = state.mode !== "object" || !byId("compared").value;
  byId("objects").querySelectorAll("button").forEach((button) =>
    button.setAttribute("aria-pressed", String(state.mode === "object" && Number(button.dataset.row) === state.row)));
  clearDrawing();
  ({ object: showObject, token: showToken, why: showPlace })[state.mode]();
  remember();
}

const FLAGS = ["heat", "heard", "neighbour", "by-head"];      // what is switched on and off
let remembering = null;

/** The view in the address, so that it can be shared; a little later, since browsers allow few changes a second. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(writeAddress, 200);
}

/** In the frame of a notebook there is no address to change. */
function writeAddress() {
  const query = data.queries.index[state.row];
  const words = { ...state, query };
  delete words.row;
  for (const id of FLAGS) if (byId(id).checked) words[id] = "";
  for (const [name, chosen] of Object.entries(shown)) {
    if (chosen.size < byId(name).querySelectorAll("input").length) words[name] = [...chosen].join(".");
  }
  if (byId("compared").value) words.beside = data.queries.index[byId("compared").value];
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
  for (const id of FLAGS) byId(id).checked = words.has(id);
  for (const [name, chosen] of Object.entries(shown)) {
    const wanted = words.has(name) ? new Set(words.get(name).split(".")) : null;
    byId(name).querySelectorAll("input").forEach((box, index) => {
      box.checked = !wanted || wanted.has(String(index));
      if (box.checked) chosen.add(index);
      else chosen.delete(index);
    });
  }
  const beside = words.has("beside") ? data.queries.index.indexOf(Number(words.get("beside"))) : -1;
  byId("compared").value = beside < 0 ? "" : beside;
}

/** A step of the guide sets the view. */
function takeStep(button) {
  const words = new URLSearchParams(button.dataset.view);
  const last = (words.get("mode") === "token" ? data.encoder.layers : data.layers).length - 1;
  Object.assign(state, { mode: words.get("mode"), layer: words.get("layer") === "last" ? last : 0 });
  if (words.get("mode") === "token") [state.x, state.y] = row(data.layers[data.layers.length - 1].boxes, state.row);
  byId("heat").checked = words.has("heat");
  byId("heard").checked = words.has("heard");
  document.querySelector(`[name="mode"][value="${state.mode}"]`).checked = true;
  show();
  if (words.has("point") && keys.points.length) choosePoint(keys.points[0], keys.query);
  picture.scrollIntoView({ block: "nearest" });
}

function choosePlace(event) {
  const area = picture.getBoundingClientRect();
  const scale = Math.min(area.width / data.image.width, area.height / data.image.height);
  state.x = Math.min(1, Math.max(0, (event.clientX - area.left - (area.width - scale * data.image.width) / 2)
    / (scale * data.image.width)));
  state.y = Math.min(1, Math.max(0, (event.clientY - area.top - (area.height - scale * data.image.height) / 2)
    / (scale * data.image.height)));
  if (state.mode === "object") {
    const found = objectAt(state.x * data.image.width, state.y * data.image.height);
    if (found === null) return;
    state.row = found;
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

function addChoices(id, texts, chosen) {
  texts.forEach((text, index) => {
    const box = document.createElement("input");
    Object.assign(box, { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) chosen.add(index);
      else chosen.delete(index);
      show();
    });
    const label = document.createElement("label");
    label.append(box);
    const key = document.createElement("span");
    key.className = "key";
    key.style.background = colourOf(index);
    label.append(key, text);
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
    byId("compared").append(new Option(button.textContent, index));
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
  const { paper, arxiv, layers, numQueries, heads, levels, points, attention } = data.model;
  const source = arxiv && ` (arXiv ${arxiv})`;
  const looks = attention === "dense" ? ", dense attention" : ` × ${levels.length} levels × ${points} points`;
  byId("model").textContent = `${paper}${source}: ${data.detections.length} found by ${numQueries} queries `
    + `in ${layers} decoder layers; ${heads} heads${looks}`;
  levels.forEach(({ stride, height, width }, level) =>
    byId("level").append(new Option(`${level}: stride ${stride}, ${height} × ${width}`, level)));
  addChoices("levels", levels.map(({ stride }) => `stride ${stride}`), shown.levels);
  addChoices("heads", Array.from({ length: heads }, (_, head) => String(head)), shown.heads);
  for (const id of ["levels", "heat-choice", "colour-choice"]) byId(id).hidden = attention === "dense";
  addObjects();
  startPicture();
  document.querySelectorAll("[data-view]").forEach((button) =>
    button.addEventListener("click", () => takeStep(button)));
  recall();
  byId("layer").addEventListener("input", (event) => { state.layer = Number(event.target.value); show(); });
  byId("level").addEventListener("change", (event) => { state.level = Number(event.target.value); show(); });
  for (const id of [...FLAGS, "compared"]) byId(id).addEventListener("change", show);
  byId("play").addEventListener("click", play);
  document.querySelectorAll('[name="mode"]').forEach((choice) =>
    choice.addEventListener("change", () => { state.mode = choice.value; show(); }));
  for (const svg of [picture, byId("second-picture")]) {
    for (const event of ["pointerover", "click"]) svg.addEventListener(event, chooseDisc);
  }
  picture.addEventListener("click", (event) => { if (!event.target.drawn) choosePlace(event); });
  picture.addEventListener("keydown", stepThroughPoints);
  window.addEventListener("hashchange", () => { recall(); show(); });
  show();
}

start();
