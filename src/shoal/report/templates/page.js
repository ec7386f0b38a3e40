"use strict";
// Shared by the parts of the page, and the small things: the order of the clusters, file names, decoding.
const shoal = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const words = (text) => new Uint16Array(bytes(text).buffer);
  const signed = (text) => new Int8Array(bytes(text).buffer);

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const font = (size, weight = 400) => `${weight} ${size}px ${colour("--sans")}`;

  // A canvas as sharp as the screen; returns its context and size in CSS pixels.
  const sized = (canvas) => {
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return { context, width, height };
  };

  // Draws on the next frame, and again when the window's size or the colour scheme changes.
  const redrawn = (canvas, draw) => {
    let waiting = false;
    const again = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; draw(); });
    };
    new ResizeObserver(again).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    return again;
  };

  // A number on a small plate, as at the clusters' centres.
  const plate = (context, x, y, text, edge, size = 12) => {
    context.font = font(size, 600);
    const width = Math.max(context.measureText(text).width + size * 0.8, size * 1.6);
    const height = size * 1.6;
    context.beginPath();
    context.roundRect(x - width / 2, y - height / 2, width, height, height / 2);
    context.globalAlpha = 0.92;
    context.fillStyle = colour("--raised");
    context.fill();
    context.globalAlpha = 1;
    context.strokeStyle = edge;
    context.lineWidth = 1.5;
    context.stroke();
    context.fillStyle = colour("--ink");
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, x, y + 0.5);
  };

  for (const hidden of document.querySelectorAll(".tools, .stage, .legend, .dial, .pair")) hidden.hidden = false;

  const list = document.querySelector(".list");
  const orders = {
    size: (card) => -card.dataset.size,
    silhouette: (card) => -card.dataset.silhouette,
    doubt: (card) => -card.dataset.doubt,
    number: (card) => +card.dataset.number,
  };
  document.getElementById("order").addEventListener("change", (event) => {
    const value = orders[event.target.value];
    const cards = [...list.children].sort((a, b) => value(a) - value(b) || a.dataset.number - b.dataset.number);
    list.append(...cards);
  });
  document.getElementById("names").addEventListener("change", (event) => {
    document.body.classList.toggle("named", event.target.checked);
  });

  return { data, bytes, words, signed, colour, font, sized, redrawn, plate };
})();
