// A picture from the camera: browsers allow that on this machine and over HTTPS.
import { addFiles } from "./pictures.js";
import { byId, say } from "./state.js";

let stream = null;

async function open() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`);
    return;
  }
  byId("video").srcObject = stream;
  byId("camera-view").showModal();
  await byId("video").play();
}

function close() {
  for (const track of stream?.getTracks() ?? []) track.stop();
  byId("video").srcObject = stream = null;
}

async function shoot() {
  const video = byId("video");
  if (!video.videoWidth) return;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  const taken = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.95); });
  byId("camera-view").close();
  addFiles([new File([taken], "camera.jpg", { type: "image/jpeg" })]);
}

export function connectCamera() {
  byId("camera").hidden = !navigator.mediaDevices?.getUserMedia;
  byId("camera").addEventListener("click", open);
  byId("shoot").addEventListener("click", shoot);
  byId("camera-view").addEventListener("close", close);
}
