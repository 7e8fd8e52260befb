// The slider over the pages of a stack, and the choice of an image in a file of several.

import { find, make } from "./panels.js";

export class PageSlider {
  constructor(onOpen) {
    this.onOpen = onOpen;
    this.picture = null;
    this.timer = 0;
    find("page").addEventListener("input", () => {
      this.say(Number(find("page").value));
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.open(this.picture.image, Number(find("page").value)), 120);
    });
    find("page-before").addEventListener("click", () => this.step(-1));
    find("page-after").addEventListener("click", () => this.step(1));
    find("image-of-file").addEventListener("change", () => this.open(Number(find("image-of-file").value), 0));
  }

  show(picture) {
    this.picture = picture;
    find("pages").hidden = !picture || (picture.pages < 2 && picture.images < 2);
    if (!picture) return;
    for (const id of ["page", "page-before", "page-after"]) find(id).hidden = picture.pages < 2;
    find("page").max = picture.pages - 1;
    find("page").value = picture.page;
    find("image-of-file").hidden = picture.images < 2;
    const options = Array.from({ length: picture.images }, (_, place) => make("option", { value: place, textContent: `Image ${place + 1} of ${picture.images}` }));
    find("image-of-file").replaceChildren(...options);
    find("image-of-file").value = picture.image;
    this.say(picture.page);
  }

  say(page) {
    const { picture } = this;
    const text = picture.pages < 2 ? "" : page === picture.page ? picture.position : `${page + 1} of ${picture.pages}`;
    find("page-text").textContent = text;
    find("page").ariaValueText = text;
  }

  step(by) {
    if (!this.picture || this.picture.pages < 2) return;
    const page = Math.min(this.picture.pages - 1, Math.max(0, this.picture.page + by));
    if (page !== this.picture.page) this.open(this.picture.image, page);
  }

  open(image, page) {
    const { file, images } = this.picture;
    this.onOpen(`${file}${images > 1 ? `#image${image}` : ""}#${page}`, image === this.picture.image);
  }
}
