"use strict";

// One viewer per unit: a canvas for each chain, painted from a sheet with the images of all.
class Viewer {
  constructor(root) {
    this.root = root;
    this.data = JSON.parse(root.querySelector("script").textContent);
    this.range = root.querySelector("input[type=range]");
    this.output = root.querySelector("output");
    this.button = root.querySelector(".play");
    this.stage = root.querySelector(".stage");
    this.images = new Map();
    this.painted = 0;
    this.tiles = Array.from({ length: this.data.chains }, (_, chain) => this.tile(chain));
    this.range.addEventListener("input", () => this.paint());
    this.button.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    root.addEventListener("change", (event) => {
      if (event.target.name?.startsWith("mode-")) this.paint();
      if (event.target.name?.startsWith("zoom-")) this.zoom(event.target.value);
    });
    root.addEventListener("keydown", (event) => {
      const by = { "+": 1, "=": 1, "-": -1 }[event.key];
      if (by && !event.ctrlKey && !event.metaKey && !event.altKey) this.zoomBy(by);
    });
    this.zoomBy(0); // a browser may have kept the choices of an earlier visit
    // A page of many units decodes a unit's images when it comes near the window.
    const near = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        near.disconnect();
        this.paint();
      },
      { rootMargin: "100%" },
    );
    near.observe(root);
  }

  tile(chain) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = this.data.size;
    canvas.setAttribute("role", "img");
    canvas.addEventListener("click", () => {
      this.zoomBy(1, true);
      figure.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
    const caption = document.createElement("figcaption");
    caption.textContent = `chain ${chain}`;
    figure.append(canvas, caption);
    this.root.querySelector(".tiles").append(figure);
    return canvas;
  }

  get mode() {
    return this.root.querySelector("input[name^=mode-]:checked").value;
  }

  // The sheet of a step, decoded once; a mode's last one is an image of the page.
  sheet(name, step) {
    const key = `${name} ${step}`;
    if (!this.images.has(key)) {
      const encoded = this.data.modes[name].sheets[step];
      let image = this.root.querySelector(`img[data-mode=${name}]`);
      if (encoded !== undefined) {
        image = new Image();
        image.src = `data:${this.data.kind};base64,${encoded}`;
      }
      this.images.set(key, image.decode().then(() => image));
    }
    return this.images.get(key);
  }

  async paint() {
    const turn = ++this.painted;
    const name = this.mode;
    const frame = Number(this.range.value);
    const mode = this.data.modes[name];
    const step = mode.step[frame];
    const label = `${mode.labels[frame]} ${this.output.dataset.of}`;
    const image = await this.sheet(name, step);
    if (turn !== this.painted) return; // the slider has moved on meanwhile
    const [width, height] = this.data.size;
    const [right, down] = this.data.pitch;
    this.tiles.forEach((canvas, chain) => {
      const left = (chain % this.data.columns) * right;
      const top = Math.floor(chain / this.data.columns) * down;
      canvas.getContext("2d").drawImage(image, left, top, width, height, 0, 0, width, height);
      canvas.setAttribute("aria-label", `${mode.title} of chain ${chain}: ${label}`);
    });
    this.output.textContent = label;
    this.range.setAttribute("aria-valuetext", label);
    const scale = this.root.querySelector(".scale");
    scale.textContent = mode.notes[step];
    this.root.dataset.painted = `${name} ${frame}`;
  }

  play() {
    const pause = matchMedia("(prefers-reduced-motion: reduce)").matches ? 1500 : 250;
    const last = Number(this.range.max);
    if (Number(this.range.value) === last) this.range.value = 0;
    this.paint();
    this.button.textContent = "Pause";
    this.timer = setInterval(() => {
      this.range.value = Number(this.range.value) + 1;
      this.paint();
      if (Number(this.range.value) === last) this.stop();
    }, pause);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "Play";
  }

  zoom(times) {
    this.stage.style.setProperty("--zoom", times);
    this.stage.classList.toggle("zoomed", times !== "1");
  }

  zoomBy(steps, around = false) {
    const choices = [...this.root.querySelectorAll("input[name^=zoom-]")];
    let next = choices.findIndex((choice) => choice.checked) + steps;
    if (around) next %= choices.length;
    const choice = choices[Math.min(Math.max(next, 0), choices.length - 1)];
    choice.checked = true;
    this.zoom(choice.value);
  }
}

// A long list, such as an atlas's cards, a page at a time. The address keeps page and order, so that a reader who
// comes back from a unit finds them again.
class Folio {
  constructor(list) {
    this.cards = [...list.children];
    this.list = list;
    this.size = Number(list.dataset.atOnce);
    this.controls = list.parentElement.querySelector(".folio");
    if (!this.controls) return;
    [this.order, this.page] = this.controls.querySelectorAll("select");
    this.buttons = [...this.controls.querySelectorAll("button")];
    const [, order, page] = location.hash.match(/^#by-(\w*)-(\d+)$/) ?? [];
    this.order.value = order ?? "";
    if (!this.order.value) this.order.value = "";
    this.sort();
    this.show(Number(page ?? 0));
    this.order.addEventListener("change", () => (this.sort(), this.turn(0)));
    this.page.addEventListener("change", () => this.turn(this.page.selectedIndex));
    this.controls.addEventListener("click", (event) => {
      const by = Number(event.target.value);
      if (event.target.matches("button")) this.turn(this.page.selectedIndex + by);
    });
  }

  sort() {
    const by = this.order.value;
    const sign = by === "trouble" ? 1 : -1;
    const value = (card) => (by in card.dataset ? sign * Number(card.dataset[by]) : Infinity);
    this.shown = by ? this.cards.toSorted((a, b) => value(a) - value(b) || 0) : this.cards;
    this.list.append(...this.shown);
    const name = (card) => card.querySelector("h2, strong").textContent;
    this.page.replaceChildren();
    for (let first = 0; first < this.shown.length; first += this.size) {
      const last = Math.min(first + this.size, this.shown.length) - 1;
      const names = by ? `${first + 1}–${last + 1}` : `${name(this.shown[first])} – ${name(this.shown[last])}`;
      this.page.append(new Option(`${first / this.size + 1}: ${names}`));
    }
  }

  turn(page) {
    this.show(page);
    history.replaceState(null, "", `#by-${this.order.value}-${this.page.selectedIndex}`);
  }

  show(page) {
    const last = this.page.length - 1;
    page = Math.min(Math.max(page, 0), last);
    this.page.selectedIndex = page;
    this.shown.forEach((card, i) => (card.hidden = Math.floor(i / this.size) !== page));
    [this.buttons[0].disabled, this.buttons[1].disabled] = [page === 0, page === last];
  }
}

document.documentElement.classList.add("scripted");
document.querySelectorAll(".viewer").forEach((viewer) => new Viewer(viewer));
document.querySelectorAll("[data-at-once]").forEach((list) => new Folio(list));

// After a link is followed, the keyboard continues from its target.
addEventListener("hashchange", () => {
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.focus();
});
