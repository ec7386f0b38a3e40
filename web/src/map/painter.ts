/** Draws the points: with WebGL, or on a plain canvas where there is none. */

import type { Camera } from "./camera";
import type { Points } from "./points";

/** How a point stands out. */
export const HIDDEN = 0;
export const FAINT = 1;
export const PLAIN = 2;
export const SELECTED = 3;

export interface Look {
  /** [N · 3] red, green, blue from 0 to 255. */
  colours: Uint8Array;
  /** [N] HIDDEN, FAINT, PLAIN or SELECTED. */
  states: Uint8Array;
}

export interface Painter {
  readonly kind: "webgl" | "canvas";
  load(points: Points): void;
  dress(look: Look): void;
  draw(camera: Camera): void;
}

/** Pixels across a point: smaller where there are many, larger when looked at from near. */
export function pointSize(count: number, zoom: number): number {
  const alone = count > 50_000 ? 2.2 : count > 10_000 ? 3.2 : count > 2000 ? 4.8 : 7;
  return Math.min(16, alone * Math.min(4, Math.max(1, Math.sqrt(zoom))));
}

export function painterFor(canvas: HTMLCanvasElement): Painter {
  const gl = canvas.getContext("webgl", { alpha: true, antialias: false, premultipliedAlpha: true });
  if (gl) return new GlPainter(canvas, gl);
  const plain = canvas.getContext("2d");
  if (!plain) throw new Error("This browser can draw neither with WebGL nor on a canvas.");
  return new CanvasPainter(canvas, plain);
}

const VERTEX = `
  attribute vec2 place; attribute vec3 colour; attribute float state;
  uniform vec2 centre; uniform vec2 scale; uniform float size; uniform float wash;
  varying vec4 shade; varying float side;
  void main() {
    gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
    side = state > 2.5 ? size * 1.7 : size;
    gl_PointSize = state < 0.5 ? 0.0 : side;
    if (state < 0.5) gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
    shade = vec4(colour, state < 1.5 ? 0.10 : state > 2.5 ? 1.0 : wash);
  }`;
const FRAGMENT = `
  precision mediump float;
  varying vec4 shade; varying float side;
  void main() {
    float away = length(gl_PointCoord - 0.5) * side;
    float cover = clamp(side * 0.5 - away, 0.0, 1.0) * shade.a;
    gl_FragColor = vec4(shade.rgb * cover, cover);
  }`;

class GlPainter implements Painter {
  readonly kind = "webgl";
  private count = 0;
  private readonly program: WebGLProgram;
  private readonly place: WebGLBuffer;
  private readonly colour: WebGLBuffer;
  private readonly state: WebGLBuffer;

  constructor(
    private canvas: HTMLCanvasElement,
    private gl: WebGLRenderingContext,
  ) {
    this.program = linked(gl);
    [this.place, this.colour, this.state] = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.attribute("place", this.place, 2, gl.FLOAT, false);
    this.attribute("colour", this.colour, 3, gl.UNSIGNED_BYTE, true);
    this.attribute("state", this.state, 1, gl.UNSIGNED_BYTE, false);
  }

  load(points: Points): void {
    const places = new Float32Array(points.length * 2);
    for (let index = 0; index < points.length; index++) {
      places[2 * index] = points.x[index] ?? 0;
      places[2 * index + 1] = points.y[index] ?? 0;
    }
    this.fill(this.place, places);
    this.count = points.length;
  }

  dress(look: Look): void {
    this.fill(this.colour, look.colours);
    this.fill(this.state, look.states);
  }

  draw(camera: Camera): void {
    const { gl, canvas } = this;
    const ratio = canvas.width / camera.width;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(this.at("centre"), camera.x, camera.y);
    gl.uniform2f(this.at("scale"), (2 * camera.scale) / camera.width, (2 * camera.scale) / camera.height);
    gl.uniform1f(this.at("size"), pointSize(this.count, camera.zoom) * ratio);
    gl.uniform1f(this.at("wash"), this.count > 20_000 ? 0.6 : 0.85);
    if (this.count) gl.drawArrays(gl.POINTS, 0, this.count);
  }

  private at(name: string): WebGLUniformLocation | null {
    return this.gl.getUniformLocation(this.program, name);
  }

  private fill(buffer: WebGLBuffer, values: Float32Array<ArrayBuffer> | Uint8Array): void {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, buffer);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, values as Uint8Array<ArrayBuffer>, this.gl.DYNAMIC_DRAW);
  }

  private attribute(name: string, buffer: WebGLBuffer, size: number, type: number, isShare: boolean): void {
    const { gl } = this;
    const place = gl.getAttribLocation(this.program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, size, type, isShare, 0, 0);
  }
}

function linked(gl: WebGLRenderingContext): WebGLProgram {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
    const shader = gl.createShader(type);
    if (!shader) throw new Error("WebGL made no shader");
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "WebGL program");
  return program;
}

class CanvasPainter implements Painter {
  readonly kind = "canvas";
  private points: Points | null = null;
  private look: Look | null = null;

  constructor(
    private canvas: HTMLCanvasElement,
    private context: CanvasRenderingContext2D,
  ) {}

  load(points: Points): void {
    this.points = points;
  }

  dress(look: Look): void {
    this.look = look;
  }

  draw(camera: Camera): void {
    const { canvas, context, points, look } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!points || !look) return;
    const ratio = canvas.width / camera.width;
    context.scale(ratio, ratio);
    const side = pointSize(points.length, camera.zoom);
    const [left, top] = camera.toMap(0, 0);
    const [right, bottom] = camera.toMap(camera.width, camera.height);
    // Rectangles: a hundred thousand arcs would take seconds.
    for (const index of points.within(left, bottom, right, top)) {
      const state = look.states[index] ?? HIDDEN;
      if (state === HIDDEN) continue;
      const [x, y] = camera.toScreen(points.x[index] ?? 0, points.y[index] ?? 0);
      const size = state === SELECTED ? side * 1.6 : side;
      const [red, green, blue] = look.colours.subarray(3 * index, 3 * index + 3);
      context.fillStyle = `rgb(${red} ${green} ${blue} / ${state === FAINT ? 0.1 : state === SELECTED ? 1 : 0.8})`;
      context.fillRect(x - size / 2, y - size / 2, size, size);
    }
  }
}
