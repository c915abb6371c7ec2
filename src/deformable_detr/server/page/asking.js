// What is asked of the server: with the token, again when it is busy, and its errors as text.
import { byId, settings, say } from "./state.js";

const TOKEN = "ddetr-token";
const ATTEMPTS = 20;

/** The server's answer for a file; throws an Error with a line for the person. */
export async function ask(path, file, accept = "application/json") {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const answer = await fetchOnce(path, file, accept);
    if (answer.ok) return answer;
    if (answer.status === 401) {
      await askForToken();
    } else if (answer.status === 503) {
      say("The server is busy; the picture waits.");
      await pause(Number(answer.headers.get("Retry-After") ?? 1));
    } else {
      throw new Error(await errorOf(answer));
    }
  }
  throw new Error("the server is too busy");
}

async function fetchOnce(path, file, accept) {
  if (file.size > settings.uploadBytes) {
    throw new Error(`expected at most ${Math.floor(settings.uploadBytes / 2 ** 20)} MiB`);
  }
  const headers = { Accept: accept };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = new FormData();
  body.append("image", file);
  try {
    return await fetch(path, { method: "POST", body, headers });
  } catch {
    throw new Error("the server cannot be reached");
  }
}

async function errorOf(answer) {
  try {
    return (await answer.json()).error;
  } catch {
    return `the server answered ${answer.status}`;
  }
}

function askForToken() {
  const dialog = byId("ask-token");
  byId("token").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN, byId("token").value);
      resolve();
    }, { once: true });
  });
}

const pause = (seconds) => new Promise((resolve) => { setTimeout(resolve, 1000 * seconds); });
