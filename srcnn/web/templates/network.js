// Runs a network in a worker. It is a list of operations (see srcnn/web/recorder.py) on values of [channels, height,
// width]; two engines can do each: plain JavaScript, and WebGPU.
const shapeOf = {
  conv: (op, [, h, w]) => [op.channels, h - op.height + 1, w - op.width + 1],
  pad: ({ pad: [left, right, top, bottom] }, [c, h, w]) => [c, h + top + bottom, w + left + right],
  shuffle: ({ scale }, [c, h, w]) => [c / scale ** 2, h * scale, w * scale],
};

function runOperations(engine, operations, input) {
  const values = [input], last = {};
  operations.forEach((op, i) => op.in.forEach((number) => { last[number] = i; }));
  operations.forEach((op, i) => {
    const inputs = op.in.map((number) => values[number]);
    const output = engine.take(shapeOf[op.op]?.(op, inputs[0].shape) ?? inputs[0].shape);
    engine.apply(op, output, ...inputs);
    values.push(output);
    for (const number of new Set(op.in)) if (number && last[number] == i) engine.give(values[number]);
  });
  return values.at(-1);
}

class Plain {
  tile = { bytes: 12e6, side: 96 };  // of the network's largest value, as caches like it; and of the image at most
  constructor(weights) { this.weights = weights; }
  put(planes, shape) {
    const value = this.take(shape);
    for (let i = 0; i < planes.length; i++) value.data[i] = planes[i] / 255;
    return value;
  }
  take([c, h, w]) { return { shape: [c, h, w], data: new Float32Array(c * h * w + 4) }; }  // conv reads beyond the end
  give() {}
  async read(values) { return values.map((value) => value.data); }
  apply(op, output, ...inputs) { this[op.op](op, output, ...inputs); }

  // Two pixels of four channels at a time: as many sums as a processor has registers for.
  conv(op, { data: out, shape: [, height, width] }, { data: x, shape: [, h, w] }) {
    const { inputs, channels, height: kh, width: kw, weight, bias } = op, k = this.weights, size = height * width;
    for (let block = 0; block < channels; block += 4) {
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column += 2) {
          let a0 = k[bias + block], a1 = k[bias + block + 1], a2 = k[bias + block + 2], a3 = k[bias + block + 3];
          let b0 = a0, b1 = a1, b2 = a2, b3 = a3, at = weight + block * inputs * kh * kw;
          for (let input = 0; input < inputs; input++) {
            for (let y = 0; y < kh; y++) {
              const start = (input * h + row + y) * w + column, end = start + kw;
              for (let p = start; p < end; p++, at += 4) {
                const a = x[p], b = x[p + 1], k0 = k[at], k1 = k[at + 1], k2 = k[at + 2], k3 = k[at + 3];
                a0 += a * k0; a1 += a * k1; a2 += a * k2; a3 += a * k3;
                b0 += b * k0; b1 += b * k1; b2 += b * k2; b3 += b * k3;
              }
            }
          }
          const first = [a0, a1, a2, a3], second = [b0, b1, b2, b3];
          for (let j = 0; j < 4 && block + j < channels; j++) {
            const o = (block + j) * size + row * width + column;
            out[o] = first[j];
            if (column + 1 < width) out[o + 1] = second[j];
          }
        }
      }
    }
  }
  pad({ pad: [left, , top], mode }, { data: out, shape: [c, height, width] }, { data: x, shape: [, h, w] }) {
    const places = (n, before, size) => Int32Array.from({ length: n }, (_, i) => source[mode](i - before, size));
    const rows = places(height, top, h), columns = places(width, left, w);
    for (let channel = 0, o = 0; channel < c; channel++)
      for (const row of rows)
        for (let i = 0; i < width; i++, o++)
          out[o] = row < 0 || columns[i] < 0 ? 0 : x[(channel * h + row) * w + columns[i]];
  }
  map({ factors }, { data: out, shape: [c, h, w] }, { data: x }) {
    for (let channel = 0, i = 0; channel < c; channel++) {
      const [positive, negative, offset] = [0, c, 2 * c].map((n) => this.weights[factors + n + channel]);
      for (const end = i + h * w; i < end; i++) out[i] = x[i] * (x[i] > 0 ? positive : negative) + offset;
    }
  }
  tanh(op, { data: out }, { data: x }) { for (let i = 0; i < out.length; i++) out[i] = Math.tanh(x[i]); }
  clamp({ min, max }, { data: out }, { data: x }) {
    for (let i = 0; i < out.length; i++) out[i] = Math.min(Math.max(x[i], min), max);
  }
  add({ factor }, { data: out }, { data: x }, { data: y }) {
    for (let i = 0; i < out.length; i++) out[i] = x[i] + factor * y[i];
  }
  shuffle({ scale }, { data: out, shape: [c, height, width] }, { data: x, shape: [, h, w] }) {
    for (let channel = 0, o = 0; channel < c; channel++)
      for (let row = 0; row < height; row++)
        for (let column = 0; column < width; column++, o++) {
          const phase = (channel * scale + row % scale) * scale + column % scale;
          out[o] = x[(phase * h + Math.floor(row / scale)) * w + Math.floor(column / scale)];
        }
  }
}

// Which pixel of n is at place i of a padded row: -1 for none.
const source = {
  zeros: (i, n) => (i < 0 || i >= n ? -1 : i),
  replicate: (i, n) => Math.min(Math.max(i, 0), n - 1),
  reflect: (i, n) => n - 1 - Math.abs(n - 1 - Math.abs(i)),
  symmetric: (i, n) => Math.min(i = ((i % (2 * n)) + 2 * n) % (2 * n), 2 * n - 1 - i),
};

const PLACES = {
  zeros: "return select(i, -1, i < 0 || i >= n);",
  replicate: "return clamp(i, 0, n - 1);",
  reflect: "return n - 1 - abs(n - 1 - abs(i));",
  symmetric: "let m = ((i % (2 * n)) + 2 * n) % (2 * n); return min(m, 2 * n - 1 - m);",
};

// The body of a shader for the pixel `at`, or with conv for four of them; o is its place in the output.
const KERNELS = {
  conv: ({ inputs, channels, height, width }) => `
    let left = at.x * 4;
    if (left >= b.y) { return; }
    let bias = constants[b.w / 4 + at.z];
    var a0 = bias; var a1 = bias; var a2 = bias; var a3 = bias; var tap = a.w / 4 + at.z * ${inputs * height * width}u;
    for (var input = 0u; input < ${inputs}u; input++) {
      for (var y = 0u; y < ${height}u; y++) {
        var p = (input * a.x + at.y + y) * a.y + left;
        var v = vec4f(x[p], x[p + 1], x[p + 2], x[p + 3]);
        for (var i = 0u; i < ${width}u; i++) {
          let w = constants[tap];
          a0 += v.x * w; a1 += v.y * w; a2 += v.z * w; a3 += v.w * w;
          tap++; p++;
          v = vec4f(v.yzw, x[p + 3]);
        }
      }
    }
    for (var j = 0u; j < 4u && at.z * 4 + j < ${channels}u; j++) {
      let o = ((at.z * 4 + j) * b.x + at.y) * b.y + left;
      out[o] = a0[j];
      if (left + 1 < b.y) { out[o + 1] = a1[j]; }
      if (left + 2 < b.y) { out[o + 2] = a2[j]; }
      if (left + 3 < b.y) { out[o + 3] = a3[j]; }
    }`,
  pad: ({ pad: [left, , top], mode }) => `
    let row = place(i32(at.y) - ${top}, i32(a.x));
    let column = place(i32(at.x) - ${left}, i32(a.y));
    let inside = row >= 0 && column >= 0;
    out[o] = select(0.0, x[(at.z * a.x + u32(max(row, 0))) * a.y + u32(max(column, 0))], inside);
  }
  fn place(i: i32, n: i32) -> i32 {
    ${PLACES[mode]}`,
  map: () => `
    let c = a.z;
    out[o] = x[o] * number(a.w + at.z + select(c, 0u, x[o] > 0)) + number(a.w + 2 * c + at.z);
  }
  fn number(i: u32) -> f32 {
    return constants[i / 4][i % 4];`,
  tanh: () => "out[o] = tanh(clamp(x[o], -15, 15));",  // beyond that some make no number of it
  clamp: ({ min, max }) => `out[o] = clamp(x[o], ${min.toExponential()}, ${max.toExponential()});`,
  add: ({ factor }) => `out[o] = x[o] + ${factor.toExponential()} * y[o];`,
  shuffle: ({ scale }) => `
    let phase = (at.z * ${scale} + at.y % ${scale}) * ${scale} + at.x % ${scale};
    out[o] = x[(phase * a.x + at.y / ${scale}) * a.y + at.x / ${scale}];`,
};

class Gpu {
  tile = { bytes: 6e7, side: 512 };
  static async open(weights) {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    if (!adapter) throw new Error("this browser has no WebGPU");
    const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
    const requiredLimits = { maxBufferSize, maxStorageBufferBindingSize };
    return new Gpu(await adapter.requestDevice({ requiredLimits }), weights);
  }
  constructor(device, weights) {
    this.device = device;
    this.pipelines = new Map();
    this.free = new Map();
    this.written = [];
    this.constants = this.buffer(weights.byteLength, GPUBufferUsage.STORAGE, weights);
    this.layout = device.createBindGroupLayout({
      entries: ["uniform", "read-only-storage", "read-only-storage", "read-only-storage", "storage"].map(
        (type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
    });
    device.lost.then(({ message }) => postMessage({ failed: message }));
    device.addEventListener("uncapturederror", ({ error }) => postMessage({ failed: error.message }));
  }
  buffer(size, usage, content) {
    const buffer = this.device.createBuffer({ size, usage, mappedAtCreation: !!content });
    if (content) {
      new content.constructor(buffer.getMappedRange()).set(content);
      buffer.unmap();
    }
    return buffer;
  }
  write(usage, content) {
    this.written.push(this.buffer(content.byteLength, usage, content));
    return this.written.at(-1);
  }
  put(planes, shape) {
    return { shape, data: this.write(GPUBufferUsage.STORAGE, Float32Array.from(planes, (level) => level / 255)) };
  }
  take([c, h, w]) {  // of few sizes, so that tiles of any shape take what others gave back
    const size = 2 ** Math.ceil(Math.log2(4 * c * h * w + 16));
    const data = this.free.get(size)?.pop() ?? this.buffer(size, GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC);
    return { shape: [c, h, w], data };
  }
  give({ data }) { this.free.set(data.size, [...(this.free.get(data.size) ?? []), data]); }

  apply(op, { shape: [c, h, w], data }, input, other = input) {
    this.encoder ??= this.device.createCommandEncoder();
    const [channels, height, width] = input.shape, isConv = op.op == "conv";
    const numbers = [height, width, channels, op.weight ?? op.factors ?? 0, h, w, c, op.bias ?? 0];
    const sizes = this.write(GPUBufferUsage.UNIFORM, new Uint32Array(numbers));
    const buffers = [sizes, input.data, other.data, this.constants, data];
    const pass = this.encoder.beginComputePass();
    pass.setPipeline(this.pipeline(op));
    pass.setBindGroup(0, this.device.createBindGroup({
      layout: this.layout, entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    }));
    pass.dispatchWorkgroups(Math.ceil(w / (isConv ? 32 : 8)), Math.ceil(h / 8), isConv ? Math.ceil(c / 4) : c);
    pass.end();
  }
  pipeline(op) {
    const body = KERNELS[op.op](op), known = this.pipelines.get(body);
    if (known) return known;
    const code = `
      @group(0) @binding(0) var<uniform> sizes: array<vec4u, 2>;
      @group(0) @binding(1) var<storage, read> x: array<f32>;
      @group(0) @binding(2) var<storage, read> y: array<f32>;
      @group(0) @binding(3) var<storage, read> constants: array<vec4f>;
      @group(0) @binding(4) var<storage, read_write> out: array<f32>;
      @compute @workgroup_size(8, 8) fn main(@builtin(global_invocation_id) at: vec3u) {
        let a = sizes[0];  // of the input: height, width, channels; where its weights or factors begin
        let b = sizes[1];  // of the output; where its bias begins
        if (at.x >= b.y || at.y >= b.x) { return; }
        let o = (at.z * b.x + at.y) * b.y + at.x;
        ${body}
      }`;
    const made = this.device.createComputePipeline({
      layout: this.device.createPipelineLayout({ bindGroupLayouts: [this.layout] }),
      compute: { module: this.device.createShaderModule({ code }) },
    });
    this.pipelines.set(body, made);
    return made;
  }
  async read(values) {
    const copies = values.map(({ data, shape: [c, h, w] }) => {
      const copy = this.buffer(4 * c * h * w, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
      this.encoder.copyBufferToBuffer(data, 0, copy, 0, copy.size);
      return copy;
    });
    this.device.queue.submit([this.encoder.finish()]);
    this.encoder = null;
    this.written.splice(0).forEach((buffer) => buffer.destroy());
    values.forEach((value) => this.give(value));
    return Promise.all(copies.map(async (copy) => {
      await copy.mapAsync(GPUMapMode.READ);
      const numbers = new Float32Array(copy.getMappedRange()).slice();
      copy.destroy();
      return numbers;
    }));
  }
}

// A tile: planes of bytes (colour or gray, and perhaps alpha) of its core and of what the network needs around it.
// Returns the core's pixels by the network and by bicubic, as RGBA.
async function enlargeTile(engine, { scale, programs }, { planes, width, height, hasAlpha, core }) {
  const size = width * height, colours = planes.length / size - hasAlpha, outputs = [];
  const run = (name, first, count) => {
    const input = engine.put(planes.subarray(first * size, (first + count) * size), [count, height, width]);
    outputs.push(runOperations(engine, programs[name], input));
  };
  run(colours == 3 ? "colour" : "gray", 0, colours);
  for (let plane = 0; plane < colours + hasAlpha; plane++) run("bicubic", plane, 1);
  const [sr, ...bicubic] = await engine.read(outputs);
  const whole = size * scale ** 2, part = (plane) => sr.subarray(plane * whole, (plane + 1) * whole);
  const alpha = hasAlpha ? [bicubic.pop()] : [];
  const views = [colours == 3 ? [0, 1, 2].map(part) : [sr, sr, sr], colours == 3 ? bicubic : Array(3).fill(bicubic[0])];
  return views.map((channels) => toBytes([...channels, ...alpha], width * scale, core.map((n) => n * scale)));
}

function toBytes(channels, stride, [left, top, width, height]) {
  const bytes = new Uint8ClampedArray(4 * width * height).fill(255);
  channels.forEach((values, channel) => {
    for (let row = 0, o = channel; row < height; row++) {
      const start = (top + row) * stride + left;
      for (let p = start; p < start + width; p++, o += 4)
        bytes[o] = Math.floor(255 * Math.min(1, Math.max(0, values[p])) + .5);
    }
  });
  return bytes;
}

let opened, network;
onmessage = async ({ data }) => {
  try {
    if (data.weights) {
      network = data.network;
      opened = await (data.gpu ? Gpu.open(data.weights) : new Plain(data.weights));
      postMessage({ tile: opened.tile });
    } else {
      const views = await enlargeTile(opened, network, data);
      postMessage({ views }, views.map(({ buffer }) => buffer));
    }
  } catch (error) {
    postMessage({ failed: String(error.message ?? error) });
  }
};
