// The view in the address: written when it changes, read when the page opens.
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
  if (["object", "token", "why"].includes(words.get("mode"))) chooseMode(words.get("mode"));
  number("x", 0, 1);
  number("y", 0, 1);
  number("level", 0, data.model.levels.length - 1);
  number("layer", 0, currentLayers().length - 1);
  state.layer = Math.floor(state.layer);
  state.level = Math.floor(state.level);
  state.row = Math.max(0, data.queries.index.indexOf(Number(words.get("query") ?? data.queries.index[0])));
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
