// The slider, the switches of classes, and every way in for pictures.
import { showPicture } from "./drawing.js";
import { addFiles, clearPictures } from "./pictures.js";
import { byId, changed, colourOf, element, settings, state } from "./state.js";

function showThreshold() {
  byId("threshold-value").textContent = state.threshold.toFixed(2);
}

/** A switch for each class that was found in some picture, in their order. */
export function drawClasses() {
  const found = new Set(state.pictures.flatMap(({ detections }) =>
    (detections ?? []).filter(({ score }) => score >= state.threshold).map(({ label }) => label)));
  for (const label of state.off) found.add(label);
  const wanted = [...found].sort((one, other) => one - other);
  const place = byId("classes");
  const present = [...place.querySelectorAll("input")].map(({ value }) => Number(value));
  if (String(present) === String(wanted)) return;
  place.querySelectorAll("label").forEach((each) => each.remove());
  place.append(...wanted.map(switchOf));
}

function switchOf(label) {
  const box = element("input", { type: "checkbox", value: String(label), checked: !state.off.has(label) });
  box.addEventListener("change", () => {
    if (box.checked) state.off.delete(label);
    else state.off.add(label);
    changed();
  });
  const key = element("span", { className: "key" });
  key.style.background = colourOf(label);
  return element("label", {}, box, key, element("bdi", { textContent: settings.names[label] }));
}

function connectDrop() {
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addFiles(event.dataTransfer.files);
  });
}

function turnPage(event) {
  const isElsewhere = event.target.closest?.("input, dialog") || event.altKey || event.ctrlKey || event.metaKey;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || isElsewhere || !state.pictures.length) return;
  event.preventDefault();
  showPicture(state.shown + step);
}

export function connectControls() {
  byId("threshold").value = state.threshold;
  showThreshold();
  byId("threshold").addEventListener("input", ({ target }) => {
    state.threshold = Number(target.value);
    showThreshold();
    changed();
  });
  byId("files").addEventListener("change", ({ target }) => {
    addFiles(target.files);
    target.value = "";
  });
  byId("clear").addEventListener("click", clearPictures);
  byId("previous").addEventListener("click", () => showPicture(state.shown - 1));
  byId("next").addEventListener("click", () => showPicture(state.shown + 1));
  document.addEventListener("paste", ({ clipboardData: { files } }) => files.length && addFiles(files));
  document.addEventListener("keydown", turnPage);
  connectDrop();
}
