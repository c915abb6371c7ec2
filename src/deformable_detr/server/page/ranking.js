// Which images the filters let through, and how bad each is.

const SIZES = ["small", "medium", "large"];

/** What of an image counts at a threshold under the filters: its right and wrong detections, and its missed objects. */
export function counted(image, { threshold, label, size, kind }, limits) {
  const reached = image.found.filter(({ score }) => score >= threshold);
  const aimedAt = new Set(reached.filter((each) => ["right", "localisation", "classification"].includes(each.kind))
    .map(({ target }) => target));
  const hit = new Set(reached.filter((each) => each.kind === "right").map(({ target }) => target));
  const chosen = (each, area) => (label === null || each.label === label) && (!size || size === sizeOf(area, limits));
  const found = reached.map((each) => ({ ...each, isChosen: chosen(each, areaOf(each.box))
    && (!kind || each.kind === kind) }));
  const truth = image.truth.map((each, index) => ({ ...each, isHit: hit.has(index), isMissed: !each.crowd
    && !aimedAt.has(index), isChosen: chosen(each, each.area) && (!kind || (kind === "missed" && !each.crowd
    && !aimedAt.has(index))) }));
  return { found, truth, ...numbers(found, truth) };
}

function numbers(found, truth) {
  const mine = found.filter(({ isChosen }) => isChosen);
  const right = mine.filter(({ kind }) => kind === "right").length;
  const wrong = mine.filter(({ kind }) => kind !== "right" && kind !== "ignored").length;
  const missed = truth.filter(({ isChosen, isHit, crowd }) => isChosen && !isHit && !crowd).length;
  const isShown = mine.length > 0 || truth.some(({ isChosen }) => isChosen);
  return { right, wrong, missed, isShown, f1: 2 * right / Math.max(1, 2 * right + wrong + missed) };
}

const areaOf = ([x, y, right, bottom]) => (right - x) * (bottom - y);

const sizeOf = (area, limits) => SIZES[limits.filter((limit) => area >= limit).length];

/** Indices of the images that are shown, the worst by F1 first, among equals those with most mistakes. */
export function worstFirst(data, filters) {
  return data.images.map((image, index) => ({ index, ...counted(image, filters, data.sizeLimits) }))
    .filter(({ isShown, wrong, missed }) => isShown && (!filters.kind || wrong + missed > 0))
    .sort((one, other) => one.f1 - other.f1 || other.wrong + other.missed - one.wrong - one.missed
      || one.index - other.index);
}
