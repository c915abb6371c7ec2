// What is shown as a file: JSON as `ddetr detect --json`, COCO, or YOLO's labels.
import { byId, say, settings, shownDetections, state } from "./state.js";
import { zip } from "./zip.js";

const encode = (value) => new TextEncoder().encode(typeof value === "string" ? value : JSON.stringify(value, null, 1));

const found = () => state.pictures.filter(({ detections }) => detections);

function asJson() {
  return found().map((each) => ({ file: each.name, width: each.width, height: each.height,
    detections: shownDetections(each) }));
}

function asCoco() {
  const images = found().map((each, index) =>
    ({ id: index + 1, file_name: each.name, width: each.width, height: each.height }));
  const annotations = found().flatMap((each, index) => shownDetections(each).map(({ box, score, category_id }) => {
    const [x, y, right, bottom] = box;
    const [width, height] = [right - x, bottom - y].map((side) => Number(side.toFixed(2)));
    return { image_id: index + 1, category_id, bbox: [x, y, width, height], area: width * height, iscrowd: 0, score };
  })).map((each, index) => ({ id: index + 1, ...each }));
  const categories = settings.names.map((name, index) => ({ id: settings.categoryIds[index], name }));
  return { images, annotations, categories };
}

/** A text of labels for each picture, and the names, as a ZIP. */
function asYolo() {
  const taken = new Set();
  const files = found().map((each) => [`labels/${freeStem(each.name, taken)}.txt`,
    encode(shownDetections(each).map((detection) => yoloLine(detection, each)).join(""))]);
  const names = settings.names.map((name, index) => `  ${index}: ${JSON.stringify(name)}\n`).join("");
  return zip([...files, ["data.yaml", encode(`names:\n${names}`)]]);
}

function yoloLine({ label, box: [x, y, right, bottom] }, { width, height }) {
  const numbers = [(x + right) / 2 / width, (y + bottom) / 2 / height, (right - x) / width, (bottom - y) / height];
  return `${label} ${numbers.map((number) => number.toFixed(6)).join(" ")}\n`;
}

function freeStem(name, taken) {
  const stem = name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._ -]/gu, "_").replace(/^\.+/, "") || "picture";
  let free = stem;
  for (let number = 2; taken.has(free); number += 1) free = `${stem}-${number}`;
  taken.add(free);
  return free;
}

const WRITERS = {
  json: () => ["detections.json", encode(asJson())],
  coco: () => ["coco.json", encode(asCoco())],
  yolo: () => ["yolo.zip", asYolo()],
};

function save(kind) {
  const [name, content] = WRITERS[kind]();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "application/octet-stream" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  say(`Saved ${name}.`);
}

export function connectExports() {
  for (const button of byId("work").querySelectorAll("[data-export]")) {
    button.addEventListener("click", () => save(button.dataset.export));
  }
}
