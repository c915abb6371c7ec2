// Pictures that were chosen, dropped, pasted or taken: each is sent in turn, once.
import { ask } from "./asking.js";
import { changed, say, state, summary, shownDetections } from "./state.js";

const ALL = "/detect?threshold=0&top_k=100";    // the slider chooses from these without another request
let isSending = false;

export function addFiles(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || file.type === "");
  if (!images.length) {
    say("That is no picture.");
    return;
  }
  const first = state.pictures.length;
  for (const file of images) {
    state.pictures.push({ name: file.name || "picture.png", file, address: URL.createObjectURL(file),
      status: "waiting" });
  }
  state.shown = first;
  changed();
  sendAll();
}

export function clearPictures() {
  for (const { address } of state.pictures) URL.revokeObjectURL(address);
  state.pictures.length = 0;
  state.shown = 0;
  say("");
  changed();
}

async function sendAll() {
  if (isSending) return;
  isSending = true;
  for (let next = waiting(); next; next = waiting()) {
    next.status = "sent";
    say(`Looking at ${next.name} …`);
    await send(next);
    changed();
  }
  isSending = false;
}

const waiting = () => state.pictures.find(({ status }) => status === "waiting");

async function send(picture) {
  try {
    const answer = await (await ask(ALL, picture.file)).json();
    Object.assign(picture, { status: "found", width: answer.width, height: answer.height,
      detections: answer.detections });
    say(progress(picture));
  } catch (error) {
    Object.assign(picture, { status: "failed", error: error.message });
    say(`${picture.name}: ${error.message}`);
  }
}

function progress(picture) {
  const done = state.pictures.filter(({ status }) => status === "found" || status === "failed").length;
  return state.pictures.length === 1 ? `${picture.name}: ${summary(shownDetections(picture))}`
    : `Looked at ${done} of ${state.pictures.length} pictures.`;
}

/** A format that this browser does not know, such as TIFF, comes back from the server as JPEG. */
export async function showOtherwise(picture) {
  if (picture.isConverted || picture.status !== "found") return;
  picture.isConverted = true;
  try {
    const drawn = await ask("/detect?threshold=1", picture.file, "image/jpeg");
    picture.address = URL.createObjectURL(await drawn.blob());
    changed();
  } catch (error) {
    say(`${picture.name} cannot be shown: ${error.message}`);
  }
}
