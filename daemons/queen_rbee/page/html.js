// preact and htm, bound to each other. Strings are always rendered as text.

import { Component, createRef, h, render } from "./parts/preact.mjs";
import htm from "./parts/htm.mjs";

export const html = htm.bind(h);
export { Component, createRef, render };
