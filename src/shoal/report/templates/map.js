// The map: dots and pictures in the plane, to be moved, zoomed and asked.
(() => {
  const { data, bytes, words, colour, sized, redrawn, plate } = shoal;
  const map = data.map;
  const canvas = document.getElementById("map-canvas");
  const hover = document.getElementById("map-hover");
  const withPictures = document.getElementById("map-pictures");
  const [xs, ys, clusters, centres] = [words(map.x), words(map.y), words(map.cluster), words(map.centres)];
  const [unsure, confidence] = [bytes(map.unsure), bytes(map.confidence)];
  const chosen = new Set();
  const view = { scale: 1, x: 0.5, y: 0.5 }; // the middle of the view, in the unit square, and how far it is zoomed
  const MOST_ZOOM = 60;

  const sheet = new Image();
  let isLoaded = false;
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    sheet.onload = () => { isLoaded = true; again(); };
    sheet.src = map.sheet;
  }, { rootMargin: "600px" }).observe(canvas);

  // Where points lie on the canvas, and how long and high all of them are, in pixels.
  const frame = (width, height) => {
    const aspect = Math.min(3, Math.max(1 / 3, map.aspect));
    const [longest, highest] = [width - 64, height - 56];
    // The map fills the canvas, stretched by a third at most: its axes have no unit.
    const long = Math.min(longest, highest * aspect * 1.33) * view.scale;
    const high = Math.min(highest, (longest / aspect) * 1.33) * view.scale;
    return {
      x: (value) => width / 2 + (value / 65534 - view.x) * long,
      y: (value) => height / 2 - (value / 65534 - view.y) * high,
      long, high,
    };
  };
  const isShown = (point) => chosen.size === 0 || chosen.has(clusters[point]);

  const draw = () => {
    const { context, width, height } = sized(canvas);
    const at = frame(width, height);
    context.clearRect(0, 0, width, height);
    drawDots(context, width, height, at);
    if (withPictures.checked && isLoaded) drawPictures(context, width, height, at);
    drawNumbers(context, width, height, at);
  };

  const drawDots = (context, width, height, at) => {
    const radius = Math.min(6, Math.max(1, Math.sqrt(26000 / map.n) * 0.62)) * Math.min(2, Math.sqrt(view.scale));
    for (const pale of [true, false]) {
      for (let point = 0; point < map.n; point++) {
        const faint = unsure[point] === 1 || !isShown(point);
        if (faint !== pale) continue;
        const x = at.x(xs[point]), y = at.y(ys[point]);
        if (x < -8 || y < -8 || x > width + 8 || y > height + 8) continue;
        context.globalAlpha = isShown(point) ? (pale ? 0.4 : 0.85) : 0.07;
        context.fillStyle = data.colours[clusters[point]];
        context.beginPath();
        context.arc(x, y, radius, 0, 6.2832);
        context.fill();
      }
    }
    context.globalAlpha = 1;
  };

  // As many pictures as fit without covering each other; the first come first, so few change while zooming.
  const drawPictures = (context, width, height, at) => {
    const size = Math.min(76, Math.min(30, Math.max(18, width / 36)) * Math.sqrt(view.scale)), cell = size + 2;
    const taken = new Map();
    for (let point = 0; point < map.pictured; point++) {
      if (!isShown(point)) continue;
      const x = at.x(xs[point]), y = at.y(ys[point]);
      if (x < 0 || y < 0 || x > width || y > height) continue;
      const column = Math.floor(x / cell), row = Math.floor(y / cell);
      if (isCrowded(taken, column, row, x, y, cell)) continue;
      taken.set(`${column},${row}`, [x, y]);
      drawTile(context, point, x - size / 2, y - size / 2, size);
      context.strokeStyle = data.colours[clusters[point]];
      context.lineWidth = 2;
      context.strokeRect(x - size / 2, y - size / 2, size, size);
    }
  };
  const isCrowded = (taken, column, row, x, y, cell) => {
    for (let c = column - 1; c <= column + 1; c++) {
      for (let r = row - 1; r <= row + 1; r++) {
        const other = taken.get(`${c},${r}`);
        if (other && Math.abs(other[0] - x) < cell && Math.abs(other[1] - y) < cell) return true;
      }
    }
    return false;
  };
  const drawTile = (context, point, x, y, size) => {
    const { tile, columns } = map;
    context.drawImage(sheet, (point % columns) * tile, Math.floor(point / columns) * tile, tile, tile, x, y, size, size);
  };

  const drawNumbers = (context, width, height, at) => {
    const size = withPictures.checked ? 10 : 12; // beside pictures, small: they are what to look at
    const placed = [];
    for (let cluster = 0; cluster < centres.length / 2; cluster++) {
      if (centres[2 * cluster] === 65535 || (chosen.size && !chosen.has(cluster))) continue;
      const x = at.x(centres[2 * cluster]), y = at.y(centres[2 * cluster + 1]);
      if (placed.some(([px, py]) => Math.abs(px - x) < 24 && Math.abs(py - y) < 18)) continue;
      placed.push([x, y]);
      plate(context, x, y, String(cluster), data.colours[cluster], size);
    }
  };

  const again = redrawn(canvas, draw);

  // -- moving ------------------------------------------------------------------------------------------------
  const clampView = () => {
    view.scale = Math.min(MOST_ZOOM, Math.max(1, view.scale));
    const slack = 0.5 - 0.5 / view.scale + 0.08;
    view.x = Math.min(0.5 + slack, Math.max(0.5 - slack, view.x));
    view.y = Math.min(0.5 + slack, Math.max(0.5 - slack, view.y));
  };
  const zoom = (factor, px, py) => {
    const { width, height } = canvas.getBoundingClientRect();
    const [cx, cy] = [px ?? width / 2, py ?? height / 2];
    const before = frame(width, height);
    const scale = Math.min(MOST_ZOOM, Math.max(1, view.scale * factor));
    const ratio = 1 - view.scale / scale;
    view.x += ((cx - width / 2) / before.long) * ratio;
    view.y -= ((cy - height / 2) / before.high) * ratio;
    view.scale = scale;
    clampView();
    hover.hidden = true;
    again();
  };
  const move = (dx, dy) => {
    const { width, height } = canvas.getBoundingClientRect();
    const at = frame(width, height);
    view.x -= dx / at.long;
    view.y += dy / at.high;
    clampView();
    again();
  };
  const showAll = () => { Object.assign(view, { scale: 1, x: 0.5, y: 0.5 }); again(); };

  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    ({ in: () => zoom(1.6), out: () => zoom(1 / 1.6), all: showAll })[button.dataset.zoom]();
  }));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls past the map
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0016)), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: showAll,
      ArrowLeft: () => move(60, 0), ArrowRight: () => move(-60, 0), ArrowUp: () => move(0, 60), ArrowDown: () => move(0, -60),
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });

  const pointers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    canvas.setPointerCapture(event.pointerId);
  });
  const release = (event) => pointers.delete(event.pointerId);
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => { hover.hidden = true; });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) { point(event); return; }
    const now = [event.clientX, event.clientY];
    if (pointers.size === 2) pinch(event.pointerId, before, now);
    else move(now[0] - before[0], now[1] - before[1]);
    pointers.set(event.pointerId, now);
    hover.hidden = true;
  });
  const pinch = (id, before, now) => {
    const [, other] = [...pointers].find(([key]) => key !== id);
    const distance = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
    const box = canvas.getBoundingClientRect();
    zoom(distance(now) / Math.max(distance(before), 1), (now[0] + other[0]) / 2 - box.left, (now[1] + other[1]) / 2 - box.top);
  };

  // -- asking ------------------------------------------------------------------------------------------------
  const nearest = (px, py) => {
    const { width, height } = canvas.getBoundingClientRect();
    const at = frame(width, height);
    let best = -1, least = 18 * 18;
    for (let candidate = 0; candidate < map.named; candidate++) {
      if (!isShown(candidate)) continue;
      const dx = at.x(xs[candidate]) - px, dy = at.y(ys[candidate]) - py;
      if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = candidate; }
    }
    return best;
  };
  const pictureOf = (found) => {
    if (found >= map.pictured) return [];
    const picture = document.createElement("canvas");
    picture.width = picture.height = 144;
    if (isLoaded) drawTile(picture.getContext("2d"), found, 0, 0, 144);
    return [picture];
  };
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    const [px, py] = [event.clientX - box.left, event.clientY - box.top];
    const found = nearest(px, py);
    hover.hidden = found < 0;
    if (found < 0) return;
    const words = document.createElement("span");
    const name = document.createElement("b");
    name.textContent = map.names[found].split("/").pop();
    words.append(name, `cluster ${clusters[found]}, confidence ${(confidence[found] / 100).toFixed(2)}${unsure[found] ? ", unsure" : ""}${found < map.pictured ? "" : "; picture not available"}`);
    hover.replaceChildren(...pictureOf(found), words);
    hover.style.left = `${Math.max(8, Math.min(px + 16, box.width - hover.offsetWidth - 8))}px`;
    hover.style.top = `${py + 16 + hover.offsetHeight > box.height ? py - hover.offsetHeight - 12 : py + 16}px`;
  };

  withPictures.addEventListener("change", again);
  document.getElementById("map-legend").addEventListener("click", (event) => {
    const button = event.target.closest("[data-cluster]");
    if (!button) return;
    const cluster = +button.dataset.cluster;
    if (!chosen.delete(cluster)) chosen.add(cluster);
    button.setAttribute("aria-pressed", chosen.has(cluster));
    again();
  });
})();
