// SPDX-License-Identifier: Apache-2.0
// Markdown with formulas and coloured code, as an element: <markdown-text .text=${...}>.
/* global DOMPurify, temml */

import hljs from "./vendor/highlight/highlight.min.js";
import { Marked } from "./vendor/marked/marked.esm.js";

const escapeHtml = text => text.replace(/[&<>"']/g, letter => `&#${letter.charCodeAt(0)};`);

// A formula is drawn after the sanitising: until then it is a data attribute.
const formula = ({ tex, display }) => `<span class="math" data-tex="${escapeHtml(tex)}" data-display="${display}"></span>`;

// \[...\] and $$...$$, \(...\) and $...$. A dollar that is followed by a space, or ends before a digit, is money.
const DISPLAY = /^(?:\\\[([\s\S]+?)\\\]|\$\$([\s\S]+?)\$\$)/;
const INLINE = /^(?:\\\(([\s\S]+?)\\\)|\$((?:\\.|[^\s\\$])|(?:\\.|[^\s\\$])(?:\\.|[^\\$\n])*?(?:\\.|[^\s\\$]))\$(?!\d))/;

function formulaToken(type, source) {
  const display = DISPLAY.exec(source);
  const match = display ?? (type === "formula" ? INLINE.exec(source) : null);
  if (match) return { type, raw: match[0], tex: (match[1] ?? match[2]).trim(), display: display !== null };
  return undefined;
}

const formulas = [
  {
    name: "formulaBlock",
    level: "block",
    start: source => /(?:^|\n)(?:\\\[|\$\$)/.exec(source)?.index,
    tokenizer: source => {
      const token = formulaToken("formulaBlock", source);
      const rest = /^[ \t]*(?:\n+|$)/.exec(source.slice(token?.raw.length));
      return token && rest ? { ...token, raw: token.raw + rest[0] } : undefined;
    },
    renderer: token => `<p>${formula(token)}</p>`,
  },
  {
    name: "formula",
    level: "inline",
    start: source => /\\[([]|\$/.exec(source)?.index,
    tokenizer: source => formulaToken("formula", source),
    renderer: formula,
  },
];

// Markup that people use inside Markdown. Any other is shown as it was written.
const HARMLESS = /^<\/?(?:b|br|i|kbd|mark|s|sub|sup|u)\s*\/?>$/i;

const renderer = {
  html: ({ text }) => (HARMLESS.test(text.trim()) ? text : escapeHtml(text)),
  heading({ tokens, depth }) {
    // The first level is the page's own.
    const level = Math.min(depth + 1, 6);
    return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
  },
  code({ text, lang }) {
    const language = (lang ?? "").trim().split(/\s/)[0];
    const known = hljs.getLanguage(language);
    const code = known ? hljs.highlight(text, { language }).value : escapeHtml(text);
    const label = `<div class="code-bar"><span>${escapeHtml(language || "text")}</span><button type="button" data-copy>Copy</button></div>`;
    return `<div class="code">${label}<pre tabindex="0"><code>${code}</code></pre></div>`;
  },
  table(token) {
    const row = (cells, tag) =>
      `<tr>${cells.map(cell => `<${tag}${cell.align ? ` class="${cell.align}"` : ""}>${this.parser.parseInline(cell.tokens)}</${tag}>`).join("")}</tr>`;
    const body = token.rows.map(cells => row(cells, "td")).join("");
    return `<div class="table" tabindex="0" role="group" aria-label="Table"><table><thead>${row(token.header, "th")}</thead><tbody>${body}</tbody></table></div>`;
  },
  checkbox: ({ checked }) => `<input type="checkbox" disabled ${checked ? "checked" : ""} aria-label="${checked ? "done" : "to do"}"> `,
  // The page loads nothing from other sites.
  image: ({ href, text }) => `<a href="${escapeHtml(href)}">Picture: ${escapeHtml(text || href)}</a>`,
};

const marked = new Marked({ gfm: true, renderer, extensions: formulas });

const ALLOWED = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: ["style", "form", "img", "picture", "video", "audio", "source", "textarea", "select", "option"],
  FORBID_ATTR: ["style", "id", "name", "srcset", "src"],
};

/** Shows `text` and renews only the blocks that changed, so that a selection survives while the answer grows. */
class MarkdownText extends HTMLElement {
  #shown = [];

  set text(value) {
    const tokens = marked.lexer(value).filter(token => token.type !== "space");
    tokens.forEach((token, index) => {
      if (this.#shown[index] === token.raw) return;
      this.#shown[index] = token.raw;
      const block = draw(token);
      const old = this.children[index];
      if (old) old.replaceWith(block);
      else this.append(block);
    });
    while (this.children.length > tokens.length) this.lastElementChild.remove();
    this.#shown.length = tokens.length;
  }
}

function draw(token) {
  const block = document.createElement("div");
  block.append(DOMPurify.sanitize(marked.parser([token]), { ...ALLOWED, RETURN_DOM_FRAGMENT: true }));
  for (const link of block.querySelectorAll("a[href]")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer";
  }
  for (const place of block.querySelectorAll(".math")) {
    const { tex, display } = place.dataset;
    // An unfinished formula is shown in red, as text.
    temml.render(tex, place, { displayMode: display === "true", throwOnError: false });
  }
  return block;
}

customElements.define("markdown-text", MarkdownText);

/** Text of a code block or of whatever else is to be copied, onto the clipboard. */
export async function copy(text) {
  // The clipboard needs a secure context; over plain HTTP from another machine there is only the old way.
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const box = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(box);
  box.select();
  document.execCommand("copy");
  box.remove();
}
