// The picture that is shown, with its boxes; the list of what was found; the gallery.
import { explain } from "./explaining.js";
import { showOtherwise } from "./pictures.js";
import { byId, changed, colourOf, element, shownDetections, shownPicture, state, summary } from "./state.js";

const LETTER = 14;      // pixels of the screen
const SVG = "http://www.w3.org/2000/svg";

export function draw() {
  const picture = shownPicture();
  byId("work").hidden = byId("clear").hidden = !picture;
  if (!picture) return;
  drawPicture(picture);
  drawFound(picture);
  drawGallery();
}

function drawPicture(picture) {
  const image = byId("shown");
  if (image.src !== picture.address) image.src = picture.address;
  else if (image.complete && !image.naturalWidth) showOtherwise(picture);
  image.alt = picture.name;
  const detections = shownDetections(picture);
  const words = picture.error ?? (picture.detections ? summary(detections) : "waiting for the server");
  byId("caption").textContent = `${picture.name}: ${words}`;
  byId("boxes").setAttribute("aria-label", words);
  drawBoxes(picture, detections);
}

export function drawBoxes(picture = shownPicture(), detections = shownDetections(picture)) {
  const svg = byId("boxes");
  const width = picture?.width ?? byId("shown").naturalWidth;
  const height = picture?.height ?? byId("shown").naturalHeight;
  if (!width || !height) {
    svg.replaceChildren();
    return;
  }
  byId("canvas").style.setProperty("--shape", width / height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const unit = width / (svg.clientWidth || width);
  // The best are drawn last, on top.
  svg.replaceChildren(...detections.toReversed().flatMap((each) => boxOf(each, unit, width, picture)));
}

function boxOf(each, unit, pictureWidth, picture) {
  const [x, y, right, bottom] = each.box;
  const area = { x, y, width: Math.max(right - x, 0), height: Math.max(bottom - y, 0) };
  const under = shape("rect", { ...area, class: "under" });
  const box = shape("rect", { ...area, "data-box": picture.detections.indexOf(each) });
  box.style.stroke = colourOf(each.label);
  box.addEventListener("click", () => explain(picture, each));
  const words = `${each.name} ${each.score.toFixed(2)}`;
  const size = LETTER * unit;
  const text = shape("text", { x: Math.max(0, Math.min(x, pictureWidth - words.length * size * 0.58)),
    y: y > size * 1.4 ? y - size * 0.35 : y + size * 1.2, "font-size": size, "stroke-width": size * 0.25 });
  text.textContent = words;
  return [under, box, text];
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawFound(picture) {
  const detections = shownDetections(picture);
  byId("found-hint").hidden = !detections.length;
  byId("found").replaceChildren(...detections.map((each) => {
    const key = element("span", { className: "key" });
    key.style.background = colourOf(each.label);
    const button = element("button", { type: "button", title: "Where did the model look?" }, key,
      element("bdi", { textContent: each.name }), element("span", { textContent: each.score.toFixed(2) }));
    const mark = (isChosen) => document.querySelector(`[data-box="${picture.detections.indexOf(each)}"]`)
      ?.classList.toggle("chosen", isChosen);
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => mark(true));
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => mark(false));
    button.addEventListener("click", () => explain(picture, each));
    return element("li", {}, button);
  }));
}

function drawGallery() {
  byId("gallery").hidden = state.pictures.length < 2;
  byId("previous").disabled = state.shown === 0;
  byId("next").disabled = state.shown === state.pictures.length - 1;
  const thumbs = byId("thumbs");
  while (thumbs.children.length > state.pictures.length) thumbs.lastChild.remove();
  state.pictures.forEach((picture, index) => {
    if (!thumbs.children[index]) thumbs.append(element("li", {}, thumbOf(index)));
    const button = thumbs.children[index].firstChild;
    if (button.firstChild.src !== picture.address) button.firstChild.src = picture.address;
    button.setAttribute("aria-label", `${picture.name}, picture ${index + 1} of ${state.pictures.length}`);
    button.setAttribute("aria-current", String(index === state.shown));
  });
}

function thumbOf(index) {
  const button = element("button", { type: "button" }, element("img", { alt: "" }));
  button.addEventListener("click", () => showPicture(index));
  return button;
}

export function showPicture(index) {
  state.shown = Math.max(0, Math.min(index, state.pictures.length - 1));
  changed();
  byId("thumbs").children[state.shown]?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

export function watchPicture() {
  byId("shown").addEventListener("load", () => drawBoxes());
  byId("shown").addEventListener("error", () => shownPicture() && showOtherwise(shownPicture()));
  new ResizeObserver(() => drawBoxes()).observe(byId("canvas"));
}
