// Requests to the page's own server, and words for times.

const formToken = document.querySelector("meta[name=dynalign-token]").content;

/** What the server says against a request, as a sentence for a person. */
class Refused extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

async function answerOf(request) {
  let answer;
  try {
    answer = await request;
  } catch {
    throw new Refused("The page's server does not answer: `dynalign ui` has ended. Start it again and open its new address.", 0);
  }
  const text = await answer.text();
  if (answer.ok) return text;
  let sentence = text.trim();
  try {
    sentence = JSON.parse(text).message ?? sentence;
  } catch {
    // a refusal before the request was looked at is plain text
  }
  throw new Refused(sentence || `The server answers ${answer.status}.`, answer.status);
}

/** The text of an answer; `fields` are those of the address. */
function ask(path, fields) {
  return answerOf(fetch(`${path}?${new URLSearchParams(fields)}`));
}

/** The sentence with which the server answers a change. */
async function change(path, body) {
  const headers = { "Content-Type": "application/json", "X-Dynalign-Token": formToken };
  return JSON.parse(await answerOf(fetch(path, { method: "POST", headers, body: JSON.stringify(body) }))).message;
}

/** `42 s`, `3:05 min`, `1:02 h`. */
function spanText(seconds) {
  const two = (value) => String(value).padStart(2, "0");
  if (seconds < 60) return `${Math.max(0, Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}:${two(Math.floor(seconds % 60))} min` : `${Math.floor(minutes / 60)}:${two(minutes % 60)} h`;
}

function secondsBetween(from, to) {
  return (new Date(to) - new Date(from)) / 1000;
}

/** The time of day, with the date on another day. */
function clockText(time) {
  const at = new Date(time);
  const today = at.toDateString() === new Date().toDateString();
  const clock = at.toLocaleTimeString("en-GB");
  return today ? clock : `${at.toLocaleDateString("en-CA")} ${clock}`;
}

/** Look again and again while the page can be seen; stops when the returned function is called. */
function poll(look, milliseconds = 2000) {
  let timer = 0;
  let stopped = false;
  const turn = async () => {
    clearTimeout(timer);
    if (stopped) return;
    if (!document.hidden) await look();
    if (!stopped) timer = setTimeout(turn, milliseconds);
  };
  const seen = () => document.hidden || turn();
  document.addEventListener("visibilitychange", seen);
  turn();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  };
}

/** A sentence with its command lines, which stand between backquotes, as code; everything is text. */
function prose(sentence) {
  return sentence.split("`").map((piece, i) => (i % 2 ? element("code", {}, piece) : piece));
}
