// The two pictures: truth, and detections. What the filters leave out is faint.
import { byId } from "./state.js";

const SVG = "http://www.w3.org/2000/svg";
const LETTER = 14;      // pixels of the screen
const WIDTH = 0.62;     // of a letter, by its height

export function compare(data, image, counts, address) {
  byId("file").textContent = image.file;
  const isObject = ({ isHit, crowd }) => (crowd ? "neither" : isHit ? "right" : "wrong");
  const isDetection = ({ kind }) => ({ right: "right", ignored: "neither" }[kind] ?? "wrong");
  drawOne("truth", image, counts.truth, isObject, ({ label }) => data.names[label], address);
  drawOne("detections", image, counts.found, isDetection, ({ label, score, kind }) =>
    `${data.names[label]} ${score.toFixed(2)}${kind === "right" ? "" : ` ${kind}`}`, address);
  const objects = counts.truth.filter(({ crowd }) => !crowd);
  caption("truth", `Truth: ${objects.length} objects, ${objects.filter(({ isHit }) => !isHit).length} not found`);
  const right = counts.found.filter(({ kind }) => kind === "right").length;
  caption("detections", `Detections: ${right} right, ${counts.found.length - right} others`);
}

function caption(id, text) {
  byId(`${id}-caption`).textContent = text;
  byId(id).setAttribute("aria-label", text);
}

function drawOne(id, image, items, classOf, wordsOf, address) {
  const svg = byId(id);
  svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  const picture = shape("image", { width: image.width, height: image.height, preserveAspectRatio: "none" });
  if (address) picture.setAttribute("href", address);
  const size = LETTER * image.width / (svg.clientWidth || image.width);
  const faint = (item) => (item.isChosen ? "" : " faint");
  svg.replaceChildren(picture, ...items.toReversed().flatMap((item) => {
    const [x, y, right, bottom] = item.box;
    const area = { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
    const words = wordsOf(item);
    const text = shape("text", { x: Math.max(0, Math.min(x, image.width - words.length * size * WIDTH)),
      y: y > 1.4 * size ? y - 0.35 * size : y + 1.2 * size,
      "font-size": size, "stroke-width": size / 4, class: faint(item).trim() });
    text.textContent = words;
    return [shape("rect", { ...area, class: `under${faint(item)}` }),
      shape("rect", { ...area, class: `${classOf(item)}${faint(item)}` }), ...(item.isChosen ? [text] : [])];
  }));
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
