// Every number of clusters that was looked at: its silhouettes and its scatter.
(() => {
  const { data, bytes, words, signed, colour, font, sized, redrawn, plate } = shoal;
  const explorer = data.explorer;
  const dial = document.getElementById("dial");
  const output = document.getElementById("dial-k");
  const readout = document.getElementById("readout");
  const knife = document.getElementById("knife-canvas");
  const scatter = document.getElementById("scatter-canvas");
  const [xs, ys] = [words(explorer.x), words(explorer.y)];
  const ofChosen = explorer.looks.findIndex((look) => look.k === explorer.chosen);
  const decoded = new Map();

  const look = () => {
    const found = explorer.looks[+dial.value];
    if (!decoded.has(found.k)) {
      const labels = found.k <= 256 ? bytes(found.labels) : words(found.labels);
      const silhouettes = signed(found.silhouettes);
      const order = [...labels.keys()].sort((a, b) => labels[a] - labels[b] || silhouettes[b] - silhouettes[a]);
      decoded.set(found.k, { ...found, labels, silhouettes, order, centres: words(found.centres) });
    }
    return decoded.get(found.k);
  };
  // The chosen clusters have the colours they have everywhere; others are other clusters, so only their order counts.
  const colourOf = (k, cluster) => (k === explorer.chosen ? data.colours[cluster] : data.palette[cluster % data.palette.length]);

  const drawKnife = () => {
    const { k, labels, silhouettes, order, mean } = look();
    const { context, width, height } = sized(knife);
    const [left, bottom, top] = [k <= 60 ? 30 : 8, 40, 8];
    let least = -0.05, most = 0.1;
    for (const value of silhouettes) { least = Math.min(least, value / 127); most = Math.max(most, value / 127); }
    const x = (value) => left + ((value - least) / (most - least)) * (width - left - 8);
    const gap = Math.min(4, (0.12 * height) / k);
    const step = (height - top - bottom - gap * (k - 1)) / order.length;
    context.clearRect(0, 0, width, height);
    drawSilhouetteAxis(context, x, least, most, height - bottom, top);
    let y = top, begin = 0, lastName = -Infinity;
    for (let cluster = 0; cluster < k; cluster++) {
      let end = begin;
      while (end < order.length && labels[order[end]] === cluster) end++;
      drawBlade(context, order.slice(begin, end).map((image) => silhouettes[image] / 127), x, y, step, colourOf(k, cluster));
      const middle = y + ((end - begin) * step) / 2;
      if (k <= 60 && end > begin && middle - lastName >= 9) {
        lastName = middle;
        context.fillStyle = colour("--soft");
        context.font = font(k <= 30 ? 12 : 9);
        context.textAlign = "right";
        context.textBaseline = "middle";
        context.fillText(cluster, left - 6, middle);
      }
      y += (end - begin) * step + gap;
      begin = end;
    }
    context.strokeStyle = colour("--accent");
    context.lineWidth = 1.5;
    context.setLineDash([6, 4]);
    context.beginPath();
    context.moveTo(x(mean), top - 4);
    context.lineTo(x(mean), height - bottom);
    context.stroke();
    context.setLineDash([]);
  };
  const drawBlade = (context, values, x, top, step, fill) => {
    context.fillStyle = fill;
    context.beginPath();
    context.moveTo(x(0), top);
    values.forEach((value, row) => {
      context.lineTo(x(value), top + row * step);
      context.lineTo(x(value), top + (row + 1) * step);
    });
    context.lineTo(x(0), top + values.length * step);
    context.fill();
  };
  const drawSilhouetteAxis = (context, x, least, most, y, top) => {
    context.font = font(12);
    context.textAlign = "center";
    context.textBaseline = "top";
    const step = most - least > 0.8 ? 0.2 : 0.1;
    for (let tick = Math.ceil(least / step); tick * step <= most; tick++) {
      const at = x(tick * step);
      context.strokeStyle = colour("--rule");
      context.lineWidth = 1;
      context.beginPath();
      context.moveTo(at, top);
      context.lineTo(at, y);
      context.stroke();
      context.fillStyle = colour("--soft");
      context.fillText((tick * step).toFixed(1).replace("-", "−"), at, y + 6);
    }
    context.fillText("silhouette", (x(least) + x(most)) / 2, y + 22);
  };

  const drawScatter = () => {
    const { k, labels, centres } = look();
    const { context, width, height } = sized(scatter);
    const [left, bottom, pad] = [22, 40, 12];
    const x = (value) => left + pad + (value / 65534) * (width - left - 2 * pad);
    const y = (value) => height - bottom - pad - (value / 65534) * (height - bottom - 2 * pad);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = colour("--rule");
    context.strokeRect(left, 0.5, width - left - 0.5, height - bottom);
    context.globalAlpha = 0.75;
    const radius = Math.min(4, Math.max(1.5, 70 / Math.sqrt(labels.length)));
    for (let image = 0; image < labels.length; image++) {
      context.fillStyle = colourOf(k, labels[image]);
      context.beginPath();
      context.arc(x(xs[image]), y(ys[image]), radius, 0, 6.2832);
      context.fill();
    }
    context.globalAlpha = 1;
    const size = k <= 30 ? 12 : k <= 120 ? 10 : 0;
    for (let cluster = 0; size && cluster < k; cluster++) {
      if (centres[2 * cluster] === 65535) continue;
      plate(context, x(centres[2 * cluster]), y(centres[2 * cluster + 1]), String(cluster), colourOf(k, cluster), size);
    }
    context.fillStyle = colour("--soft");
    context.font = font(12);
    context.textAlign = "center";
    context.textBaseline = "top";
    context.fillText("feature 1", left + (width - left) / 2, height - bottom + 22);
    context.save();
    context.translate(12, (height - bottom) / 2);
    context.rotate(-Math.PI / 2);
    context.textBaseline = "middle";
    context.fillText("feature 2", 0, 0);
    context.restore();
  };

  const knifeAgain = redrawn(knife, drawKnife);
  const scatterAgain = redrawn(scatter, drawScatter);
  const show = () => {
    const { k, mean, stability, smallest } = look();
    output.textContent = k;
    dial.setAttribute("aria-valuetext", `${k} clusters`);
    const stable = stability === null ? "" : `, stability ${stability.toFixed(2)}`;
    readout.textContent = `Mean silhouette ${mean.toFixed(3)}${stable}; the smallest cluster has ${smallest.toLocaleString("en")}.`;
    document.getElementById("dial-chosen").disabled = +dial.value === ofChosen;
    knifeAgain();
    scatterAgain();
  };

  const sampled = explorer.n < explorer.of ? ` Drawn: ${explorer.n.toLocaleString("en")} of the images, at random; the figures are of all.` : "";
  const inexact = explorer.exact ? "" : ` Of so many images, silhouettes are computed among ${explorer.of.toLocaleString("en")}.`;
  document.getElementById("explorer-intro").append(inexact || sampled);
  dial.max = explorer.looks.length - 1;
  dial.value = ofChosen;
  dial.addEventListener("input", show);
  document.getElementById("dial-chosen").addEventListener("click", () => { dial.value = ofChosen; show(); });
  document.querySelector(".dial").hidden = explorer.looks.length < 2;
  document.querySelectorAll("[data-k]").forEach((dot) => dot.addEventListener("click", () => {
    const index = explorer.looks.findIndex((candidate) => candidate.k === +dot.dataset.k);
    if (index < 0) return;
    dial.value = index;
    show();
    document.getElementById("explorer").scrollIntoView();
  }));
  show();
})();
