// A card compares an image: one view left of the cut, another right of it, the ground truth or the errors on demand.
const GAIN = 5, sides = {}, cards = [...document.querySelectorAll(".card")].map(card);
let current = cards[0];

function card(root) {
  const find = (selector) => root.querySelector(selector);
  const stage = find(".stage"), cut = find(".cut"), [width, height] = stage.dataset.size.split(",").map(Number);
  const state = { root, zoom: 1, x: 0, y: 0, fit: 1 };  // x, y: the image's point at the stage's top left

  state.layout = () => {
    state.fit = Math.min(root.clientWidth / width, Math.min(innerHeight * .72, 640) / height);
    stage.style.width = `${width * state.fit}px`;
    stage.style.height = `${height * state.fit}px`;
    state.draw();
  };
  state.draw = () => {
    const scale = state.fit * state.zoom;
    state.x = Math.min(Math.max(state.x, 0), width - width / state.zoom);
    state.y = Math.min(Math.max(state.y, 0), height - height / state.zoom);
    for (const layer of stage.querySelectorAll(".pane > *"))
      layer.style.transform = `scale(${scale}) translate(${-state.x}px, ${-state.y}px)`;
    stage.style.setProperty("--cut", `${cut.value}%`);
    stage.classList.toggle("zoomed", state.zoom > 1);
    stage.classList.toggle("sharp", scale >= 1.5);
    cut.setAttribute("aria-valuetext", `${sides.left} on the left ${Math.round(cut.value)} percent`);
    find("output").value = `${Math.round(100 * scale)} %`;
  };
  state.zoomBy = (factor, atX = .5, atY = .5) => {
    const zoom = Math.min(16, Math.max(1, state.zoom * factor));
    state.x += atX * width * (1 / state.zoom - 1 / zoom);
    state.y += atY * height * (1 / state.zoom - 1 / zoom);
    state.zoom = zoom;
    state.draw();
  };
  state.pan = (dx, dy) => { state.x += dx * width / state.zoom; state.y += dy * height / state.zoom; state.draw(); };
  state.cutBy = (percent) => { cut.value = Number(cut.value) + percent; state.draw(); };
  state.toggle = (what) => {
    const on = stage.classList.toggle(what), other = { "shows-truth": "shows-lr", "shows-lr": "shows-truth" }[what];
    if (on && other && stage.classList.contains(other)) state.toggle(other);
    find(`[data-do=${what}]`).setAttribute("aria-pressed", on);
    if (what == "error") state.views();
  };
  state.views = () => {
    const error = stage.classList.contains("error");
    for (const side of ["left", "right"]) {
      find(`select[data-side=${side}]`).value = sides[side];
      for (const pane of stage.querySelectorAll(".pane")) pane.classList.toggle(side, pane.dataset.view == sides[side]);
      find(side == "left" ? ".chip.a" : ".chip.b").textContent = sides[side] + (error ? `'s error ×${GAIN}` : "");
    }
    if (error) errors(stage, width, height);
  };
  for (const select of root.querySelectorAll("select")) {
    sides[select.dataset.side] ??= select.value;
    select.addEventListener("change", () => show(select.dataset.side, select.value));
  }
  cut.addEventListener("input", state.draw);
  root.addEventListener("focusin", () => choose(state));
  root.addEventListener("pointerenter", () => choose(state));
  const actions = { in: () => state.zoomBy(2), out: () => state.zoomBy(.5), whole: () => state.zoomBy(0) };
  for (const button of root.querySelectorAll("button[data-do]"))
    button.addEventListener("click", () => (actions[button.dataset.do] ?? (() => state.toggle(button.dataset.do)))());
  pointers(stage, state, cut);
  state.views();
  state.layout();
  return state;
}

// Of all images the same: what is chosen for one side while the other shows it changes places with it.
function show(side, view) {
  const other = side == "left" ? "right" : "left";
  if (sides[other] == view) sides[other] = sides[side];
  sides[side] = view;
  cards.forEach((state) => { state.views(); state.draw(); });
}

// Dragging moves the cut; in a zoomed image only by its handle, elsewhere it moves the image.
function pointers(stage, state, cut) {
  let moves = null;
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height, box.width];
  };
  stage.addEventListener("pointerdown", (event) => {
    const [x, y, side] = at(event);
    const handle = Math.abs(x - cut.value / 100) * side < 28;
    moves = { cut: handle || state.zoom == 1, x, y };
    stage.setPointerCapture(event.pointerId);
    if (moves.cut) { cut.value = 100 * x; state.draw(); }
  });
  stage.addEventListener("pointermove", (event) => {
    if (!moves) return;
    const [x, y] = at(event);
    if (moves.cut) { cut.value = 100 * x; state.draw(); } else state.pan(moves.x - x, moves.y - y);
    Object.assign(moves, { x, y });
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { moves = null; });
  stage.addEventListener("dblclick", (event) => state.zoomBy(2, ...at(event)));
}

// |Y - Y of the ground truth|, as bright as GAIN makes it: black, orange, white.
function errors(stage, width, height) {
  const luma = (image) => {
    const context = new OffscreenCanvas(width, height).getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, width, height).data, y = new Float32Array(width * height);
    for (let i = 0; i < y.length; i++)
      y[i] = .256788 * pixels[4 * i] + .504129 * pixels[4 * i + 1] + .097906 * pixels[4 * i + 2];
    return y;
  };
  const truth = luma(stage.querySelector(".truth img"));
  for (const pane of stage.querySelectorAll(".left, .right")) {
    const canvas = pane.querySelector("canvas");
    if (canvas.dataset.done) continue;
    canvas.dataset.done = "yes";
    const y = luma(pane.querySelector("img")), picture = new ImageData(width, height);
    for (let i = 0; i < y.length; i++) {
      const t = Math.min(1, Math.abs(y[i] - truth[i]) * GAIN / 255);
      picture.data.set([255 * Math.min(1, 1.8 * t), 255 * t ** 1.2, 255 * t ** 3, 255], 4 * i);
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
  }
}

function choose(state) {
  current?.root.classList.remove("current");
  current = state;
  state.root.classList.add("current");
}

function step(count) {
  const next = cards[Math.min(Math.max(cards.indexOf(current) + count, 0), cards.length - 1)];
  choose(next);
  next.root.scrollIntoView({ block: "start" });
  next.root.querySelector(".cut").focus({ preventScroll: true });
}

const KEYS = {
  ArrowLeft: (e) => current.cutBy(e.shiftKey ? -10 : -1), ArrowRight: (e) => current.cutBy(e.shiftKey ? 10 : 1),
  g: () => current.toggle("shows-truth"), l: () => current.toggle("shows-lr"), e: () => current.toggle("error"),
  "+": () => current.zoomBy(2), "=": () => current.zoomBy(2), "-": () => current.zoomBy(.5), 0: () => current.zoomBy(0),
  w: () => current.pan(0, -.1), s: () => current.pan(0, .1), a: () => current.pan(-.1, 0), d: () => current.pan(.1, 0),
  n: () => step(1), p: () => step(-1),
};
addEventListener("keydown", (event) => {
  const act = KEYS[event.key.length == 1 ? event.key.toLowerCase() : event.key];
  if (!act || !current || event.target.closest("select") || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  act(event);
});
addEventListener("resize", () => cards.forEach((state) => state.layout()));
