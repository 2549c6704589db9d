// Has photographs enlarged tile by tile by workers, one photograph after the other, and shows them as compare.js does.
for (const key of "gle") delete KEYS[key];  // there is no ground truth, no LR view and no error here
const find = (id) => document.getElementById(id), network = JSON.parse(find("network").textContent);
const code = URL.createObjectURL(new Blob([find("worker").textContent], { type: "text/javascript" }));
const text = atob(network.weights), bytes = new Uint8Array(text.length);
for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
const weights = new Float32Array(bytes.buffer);
delete network.weights;

// The workers, one for WebGPU or as many of plain JavaScript as there are cores.
async function open(gpu) {
  const count = gpu ? 1 : Math.min(8, Math.max(1, navigator.hardwareConcurrency ?? 1));
  const workers = Array.from({ length: count }, () => new Worker(code));
  try {
    const [{ tile }] = await Promise.all(workers.map((worker) => ask(worker, { gpu, weights, network })));
    return { gpu, workers, tile, how: gpu ? "by WebGPU" : `in plain JavaScript by ${plural(count, "worker")}` };
  } catch (error) {
    workers.forEach((worker) => worker.terminate());
    if (gpu) return open(false);
    throw error;
  }
}

// A worker's answer to a message, after it has answered those before.
function ask(worker, message) {
  const send = () => new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => (data.failed ? reject(new Error(data.failed)) : resolve(data));
    worker.onerror = (event) => reject(new Error(event.message));
    worker.postMessage(message);
  });
  return worker.last = (worker.last ?? Promise.resolve()).then(send, send);
}

let engine = open(location.hash != "#plain"), latest = 0;

// Files that were chosen, dropped or pasted together; they take the place of those before, done or not.
async function take(files) {
  const number = ++latest, wanted = () => number == latest, failures = [];
  const say = (sentence, done = null) => {
    if (!wanted()) return;
    find("status").textContent = [sentence, ...failures].filter(Boolean).join(" ");
    find("progress").hidden = done == null;
    find("progress").value = done ?? 0;
  };
  let summary = "", placed = 0, finished = 0;
  for (const [index, file] of files.entries()) {
    const where = files.length > 1 ? `${index + 1} of ${files.length}: ` : "";
    say(`${where}Reading …`);
    try {
      const image = await read(file);
      if (!wanted()) return;
      const view = place(file.name, image, !placed++);
      summary = await finish(image, view, (text, done) => say(where + text, done), wanted);
      finished++;
    } catch (error) {
      failures.push(error.message);
    }
    if (!wanted()) return;
  }
  find("all").hidden = finished < 2;
  say(finished > 1 ? `Done: ${finished} photographs.` : summary);
}

// Enlarges one image; returns a sentence on how it was done.
async function finish(image, view, say, wanted) {
  const began = performance.now(), seconds = () => (performance.now() - began) / 1000;
  for (let used = await engine; wanted(); used = await (engine = open(false))) {  // again where a GPU gave up
    const tell = (done) => {
      const left = Math.ceil(seconds() * (1 / done - 1)), time = done && left > 2 ? `, ${left} s left` : "";
      const hint = used.gpu ? "" : ". With WebGPU it would be faster.";
      say(`Enlarging ${used.how}: ${Math.floor(100 * done)} %${time}${hint}`, done);
    };
    tell(0);
    if (await enlarge(image, view, used, tell, wanted)) {
      view.save.disabled = false;
      return `Done ${used.how} in ${seconds().toFixed(1)} s.`;
    }
  }
}

const plural = (count, noun) => `${count} ${noun}${count == 1 ? "" : "s"}`;

// The pixels of an image file, upright, in sRGB: colours (or gray, where all are gray) and perhaps alpha, as planes.
async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none" });
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read.`);
  }
  const { width, height } = bitmap, scale = network.scale;
  if (width * height * scale ** 2 > 2 ** 27 || Math.max(width, height) * scale > 16384)
    throw new Error(`${file.name}: ${width}×${height} pixels would become ${width * scale}×${height * scale}, `
      + "too many for a browser; srcnn-predict enlarges it.");
  // A canvas stores colours multiplied by alpha; in float16, where the browser has that, they come back unchanged.
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true, colorType: "float16" });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height), size = width * height;
  let gray = true, opaque = true;
  for (let i = 0; i < data.length; i += 4) {
    gray &&= data[i] == data[i + 1] && data[i] == data[i + 2];
    opaque &&= data[i + 3] == 255;
  }
  const channels = [...(gray ? [0] : [0, 1, 2]), ...(opaque ? [] : [3])];
  const planes = channels.map((c) => Uint8Array.from({ length: size }, (_, i) => data[4 * i + c]));
  if (!opaque) spread(planes.slice(0, -1), planes.at(-1), width, height, network.view + 2);
  const exact = opaque || context.getContextAttributes?.().colorType == "float16";
  return { width, height, planes, hasAlpha: !opaque, exact, canvas };
}

// Visible colours carried some pixels into what is wholly transparent, so that no hidden colour shows at its edges.
function spread(colours, alpha, width, height, radius) {
  let known = Float32Array.from(alpha, (level) => Number(level > 0));
  if (!known.includes(0)) return;
  const mean = (x) => boxes(boxes(x, width, height, 1), width, height, width);
  let planes = colours.map((plane) => Float32Array.from(plane, (level, i) => level * known[i]));
  for (let step = 0; step < radius; step++) {
    const weight = mean(known);
    for (const plane of planes) {
      const sums = mean(plane);
      for (let i = 0; i < plane.length; i++) if (!known[i]) plane[i] = sums[i] / Math.max(weight[i], 1e-5);
    }
    known = weight.map((count) => Number(count > 0));
  }
  planes.forEach((plane, c) => plane.forEach((level, i) => { colours[c][i] = Math.floor(level + .5); }));
}

// Sums of three neighbours, along rows (a step of 1) or columns (a step of the width).
function boxes(x, width, height, step) {
  return x.map((value, i) => {
    const at = step == 1 ? i % width : Math.floor(i / width), end = step == 1 ? width : height;
    return value + (at > 0 ? x[i - step] : 0) + (at < end - 1 ? x[i + step] : 0);
  });
}

// The card of an image: the browser's own enlargement at first, which the tiles replace.
function place(name, { width, height, hasAlpha, exact, canvas }, first) {
  if (first) {
    cards.length = 0;
    find("result").replaceChildren();
    find("all").hidden = true;
  }
  const [w, h] = [width, height].map((side) => side * network.scale);
  const root = find("card").content.cloneNode(true).firstElementChild, stem = name.replace(/\.[^.]*$/, "");
  root.querySelector("h3").textContent = name;
  root.querySelector(".size").textContent = `${width}×${height} → ${w}×${h} pixels`;
  root.querySelector(".stage").dataset.size = `${w},${h}`;
  const contexts = [...root.querySelectorAll("canvas")].map((pane) => {
    Object.assign(pane, { width: w, height: h });
    const context = pane.getContext("2d", { willReadFrequently: true });  // on the CPU, where the tiles come from
    if (!context) throw new Error(`${name}: the result does not fit into this browser's memory.`);
    context.drawImage(canvas, 0, 0, w, h);
    return context;
  });
  root.querySelector(".rounded").hidden = exact;
  const save = root.querySelector(".save"), pixels = hasAlpha ? new ImageData(w, h) : null;
  save.onclick = async () => {
    const link = document.createElement("a"), blob = await png(contexts[0].canvas, pixels);
    Object.assign(link, { href: URL.createObjectURL(blob), download: `${stem}_x${network.scale}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  };
  find("result").append(root);
  document.body.classList.add("small");
  cards.push(card(root));
  if (first) choose(cards[0]);
  return { contexts, pixels, save };
}

// A PNG of the canvas; with alpha of the pixels beside it, as a canvas stores colours multiplied by alpha.
async function png(canvas, pixels) {
  if (!pixels) return new Promise((resolve) => canvas.toBlob(resolve));
  const copy = new OffscreenCanvas(pixels.width, pixels.height);
  const bitmap = await createImageBitmap(pixels, { premultiplyAlpha: "none" });
  copy.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
  return copy.convertToBlob();
}

// All tiles by all workers; false if it was given up, as other images are wanted or a GPU failed.
async function enlarge(image, { contexts, pixels }, { gpu, workers, tile }, tell, wanted) {
  const { width, height, planes, hasAlpha } = image, { scale, view } = network;
  const todo = tiles(width, height, tile), count = todo.length;
  let failure = null, done = 0;
  await Promise.all(workers.map(async (worker) => {
    while (todo.length && wanted() && !failure) {
      const [left, top, w, h] = todo.shift();
      const x0 = Math.max(0, left - view), y0 = Math.max(0, top - view);
      const seen = [Math.min(width, left + w + view) - x0, Math.min(height, top + h + view) - y0];
      const part = new Uint8Array(planes.length * seen[0] * seen[1]);
      planes.forEach((plane, c) => {
        for (let y = 0; y < seen[1]; y++)
          part.set(plane.subarray((y0 + y) * width + x0, (y0 + y) * width + x0 + seen[0]), (c * seen[1] + y) * seen[0]);
      });
      const core = [left - x0, top - y0, w, h];
      try {
        const { views } = await ask(worker, { planes: part, width: seen[0], height: seen[1], hasAlpha, core });
        if (!wanted()) return;
        views.forEach((bytes, i) =>
          contexts[i].putImageData(new ImageData(bytes, w * scale, h * scale), left * scale, top * scale));
        const row = 4 * w * scale, start = 4 * scale * (top * width * scale + left);
        for (let y = 0; pixels && y < h * scale; y++)
          pixels.data.set(views[0].subarray(y * row, (y + 1) * row), start + 4 * y * width * scale);
        tell(++done / count);
      } catch (error) {
        failure = error;
      }
    }
  }));
  if (failure && !gpu) throw failure;
  return done == count;
}

// Cores of tiles, of a size that suits the engine.
function tiles(width, height, { bytes, side }) {
  const { view } = network, fitting = Math.floor(Math.sqrt(bytes / 4 / perPixel())) - 2 * view;
  const step = Math.min(Math.max(fitting, 2 * view, 16), side), found = [];
  for (let top = 0; top < height; top += step)
    for (let left = 0; left < width; left += step)
      found.push([left, top, Math.min(step, width - left), Math.min(step, height - top)]);
  return found;
}

// The most numbers that one of the network's values has for each pixel of the image.
function perPixel() {
  const values = [[3, 1]];  // channels, and pixels for one of the image
  for (const op of network.programs.colour) {
    const [channels, pixels] = values[op.in[0]], square = (op.scale ?? 1) ** 2;
    values.push([op.channels ?? channels / square, pixels * square]);
  }
  return Math.max(...values.map(([channels, pixels]) => channels * pixels));
}

find("choose").onclick = () => find("file").click();
find("file").onchange = ({ target }) => {
  if (target.files.length) take([...target.files]);
  target.value = "";
};
find("all").onclick = async () => {
  for (const { root } of cards) await root.querySelector(".save:enabled")?.onclick();
};
addEventListener("paste", ({ clipboardData }) => { if (clipboardData.files.length) take([...clipboardData.files]); });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", kind == "dragenter" || kind == "dragover");
    if (kind == "drop" && event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
