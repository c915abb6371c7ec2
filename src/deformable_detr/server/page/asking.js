// What is asked of the server: with the token, again when it is busy, and its errors as text.
import { byId, say, settings } from "./state.js";

const TOKEN = "ddetr-token";
const ATTEMPTS = 20;

/** The server's answer for an image file; throws an Error with a line for the person. */
export async function ask(path, file, accept = "application/json") {
  if (file.size > settings.uploadBytes) {
    throw new Error(`expected at most ${Math.floor(settings.uploadBytes / 2 ** 20)} MiB`);
  }
  const body = new FormData();
  body.append("image", file);
  return fetchWithToken(path, { method: "POST", body, headers: { Accept: accept } });
}

/** As `fetch`, but throws an Error for an answer that is none. */
export async function fetchWithToken(path, options = {}) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const answer = await fetchOnce(path, options);
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

async function fetchOnce(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  try {
    return await fetch(path, { ...options, headers });
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
