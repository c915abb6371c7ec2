// What the page knows: the pictures, which one is shown, and what of its detections.
export const settings = JSON.parse(document.body.dataset.settings);
export const byId = (id) => document.getElementById(id);

/** Each picture is { name, file, address, status, error, width, height, detections }. */
export const state = { pictures: [], shown: 0, threshold: settings.threshold, off: new Set() };

const listeners = [];

/** Call a function whenever something has changed. */
export const whenChanged = (listener) => listeners.push(listener);

export function changed() {
  for (const listener of listeners) listener();
}

export const shownPicture = () => state.pictures[state.shown];

/** The detections of a picture that the slider and the switches let through. */
export function shownDetections(picture) {
  return (picture?.detections ?? []).filter((each) => each.score >= state.threshold && !state.off.has(each.label));
}

/** How many of each class, in words. */
export function summary(detections) {
  const counts = new Map();
  for (const { name } of detections) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => `${count} ${name}`).join(", ") || "nothing found";
}

export function say(text) {
  byId("status").textContent = text;
}

/** The colour of a class, as the command line draws it: hues a golden angle apart at three lightnesses. */
export function colourOf(label) {
  const hue = (0.45 + label * Math.PI * (3 - Math.sqrt(5))) * 180 / Math.PI;
  return `oklch(${[0.72, 0.6, 0.82][label % 3]} 0.17 ${hue % 360})`;
}

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  Object.assign(made, properties);
  made.append(...children);
  return made;
}
