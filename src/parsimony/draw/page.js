"use strict";
const SIDE = 112, BOX = 80, PEN = 11; // of what is sent, in pixels: its side, room for the strokes' middles, their width
const get = id => document.getElementById(id);
const paper = get("paper"), ink = paper.getContext("2d");
let strokes = [], pointer = null, network = null, busy = false, waiting = false;

function pen(context, width) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "#fff";
}

// `place` turns a point of the paper, 0 to 1, into pixels.
function draw(context, place) {
  for (const stroke of strokes) {
    context.beginPath();
    context.moveTo(...place(stroke[0]));
    for (const point of stroke) context.lineTo(...place(point));
    context.stroke();
  }
}

function show() {
  ink.clearRect(0, 0, paper.width, paper.height);
  pen(ink, paper.width * 0.07);
  draw(ink, ([x, y]) => [x * paper.width, y * paper.height]);
}

// The strokes scaled to one size with a pen of one width, so that a small digit is not drawn with a thicker one.
function drawing() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d"), points = strokes.flat();
  const [xs, ys] = [0, 1].map(axis => points.map(point => point[axis]));
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = BOX / Math.max(right - left, bottom - top, 0.1);
  pen(context, PEN);
  draw(context, ([x, y]) => [
    SIDE / 2 + (x - (left + right) / 2) * scale,
    SIDE / 2 + (y - (top + bottom) / 2) * scale,
  ]);
  const pixels = context.getImageData(0, 0, SIDE, SIDE).data;
  return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => pixels[4 * i + 3]);
}

function bytes(text) {
  return Uint8Array.from(atob(text), character => character.charCodeAt(0));
}

function paint(canvas, values, colour) {
  const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
  values.forEach((value, i) => image.data.set([...colour(value), 255], 4 * i));
  context.putImageData(image, 0, 0);
}

function tell(answer) {
  const shares = answer.probabilities || network.classes.map(() => 0);
  const best = answer.probabilities ? shares.indexOf(Math.max(...shares)) : -1;
  get("best").textContent = best < 0 ? "" : network.classes[best];
  [...get("bars").children].forEach((bar, i) => {
    bar.classList.toggle("best", i === best);
    bar.children[1].firstChild.style.width = `${100 * shares[i]}%`;
    bar.children[2].textContent = best < 0 ? "" : `${(100 * shares[i]).toFixed(1)} %`;
  });
  paint(get("picture"), bytes(answer.picture), value => [value, value, value]);
  const tiles = [...document.querySelectorAll("#maps .tiles")];
  answer.maps.forEach((text, i) => {
    const values = bytes(text), { height, width } = network.layers[i];
    [...tiles[i].children].forEach((canvas, map) => {
      const part = values.subarray(map * height * width, (map + 1) * height * width);
      paint(canvas, part, value => network.colours[value]);
    });
  });
}

// One question at a time; what is drawn meanwhile is asked about next.
async function ask() {
  waiting = true;
  if (busy || !network) return;
  busy = true;
  try {
    while (waiting) {
      waiting = false;
      const reply = await fetch("/answer", {
        method: "POST",
        headers: { "Content-Type": "application/octet-stream" },
        body: drawing(),
      });
      if (!reply.ok) throw new Error(await reply.text());
      const answer = await reply.json();
      if (answer.network !== network.id) return location.reload(); // another draw command took the port
      tell(answer);
    }
    get("about").textContent = network.text;
  } catch (error) {
    get("about").textContent = `No answer: ${error.message}. Does parsimony draw still run?`;
  }
  busy = false;
}

function point(event) {
  const box = paper.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function changed() {
  show();
  ask();
}

paper.addEventListener("pointerdown", event => {
  if (pointer !== null || event.button !== 0) return;
  pointer = event.pointerId;
  paper.setPointerCapture(pointer);
  strokes.push([point(event)]);
  changed();
});
paper.addEventListener("pointermove", event => {
  if (event.pointerId !== pointer) return;
  const moves = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  strokes.at(-1).push(...(moves.length ? moves : [event]).map(point));
  changed();
});
for (const end of ["pointerup", "pointercancel"]) {
  paper.addEventListener(end, event => { if (event.pointerId === pointer) pointer = null; });
}
get("clear").addEventListener("click", () => { strokes = []; changed(); });
get("undo").addEventListener("click", () => { strokes.pop(); changed(); });

function element(name, ...children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}

async function start() {
  network = await (await fetch("/network")).json();
  network.text = `${network.name}: ${network.about}. Nothing that you draw leaves this machine.`;
  document.title = `Draw a digit: ${network.name}`;
  for (const name of network.classes) {
    get("bars").append(element("li", element("span", name), element("span", element("i")), element("span")));
  }
  get("picture").width = get("picture").height = network.side;
  for (const layer of network.layers) {
    const tiles = element("div");
    tiles.className = "tiles";
    for (let i = 0; i < layer.count; i++) {
      const canvas = element("canvas");
      canvas.ariaHidden = "true"; // the title says what it is of
      [canvas.width, canvas.height] = [layer.width, layer.height];
      tiles.append(canvas);
    }
    get("maps").append(element("h3", layer.title), tiles);
  }
  changed();
}

start().catch(error => { get("about").textContent = `${error.message}. Does parsimony draw still run?`; });
