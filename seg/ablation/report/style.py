"""The look of a report: one style sheet, for light and dark screens, telephones and paper."""

STYLE = """
:root {
  color-scheme: light dark; --ink: #1b1b1b; --soft: #555; --rule: #c8c8c8; --paper: #fff; --note: #fff4d6;
  --link: #0b5394; --code: #f3f3f3; --shade: rgb(0 0 0 / 30%);
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e8e8e8; --soft: #b0b0b0; --rule: #4a4a4a; --paper: #161616; --note: #3a3012; --link: #8ec7ff;
    --code: #242424; --shade: rgb(255 255 255 / 30%);
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
}
main { max-width: 78rem; margin: 0 auto; padding: 1rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4rem 0; }
h2 { font-size: 1.3rem; margin: 2.4rem 0 0.5rem; border-bottom: 1px solid var(--rule); }
h3 { font-size: 1.08rem; margin: 1.4rem 0 0.3rem; }
h1, h2, h3, p, li, summary { overflow-wrap: anywhere; }
p, figcaption, main > ul { max-width: 52rem; }
p { margin: 0.5rem 0; }
ul { margin: 0.4rem 0; padding-left: 1.3rem; }
a { color: var(--link); }
.lead { font-size: 1.2rem; font-weight: 600; }
.notice { background: var(--note); border-left: 0.3rem solid #b37700; padding: 0.4rem 0.8rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; list-style: none; padding: 0; font-size: 0.9rem; }
nav a { display: inline-block; padding: 0.25rem 0; }
.caption, figcaption, small { color: var(--soft); }
.caption, figcaption { font-size: 0.88rem; line-height: 1.4; }
.caption { margin: 0.8rem 0 0.3rem; }
.scroll {
  overflow-x: auto; margin-bottom: 1.2rem;
  /* A shadow at an edge beyond which the table goes on; what scrolls with the table covers it at the table's end. */
  background:
    linear-gradient(to left, var(--paper) 40%, transparent) right / 2.4rem 100% no-repeat local,
    linear-gradient(to left, var(--shade), transparent) right / 1.1rem 100% no-repeat scroll;
}
/* Collapsed rules would scroll away from below the first column, which stays. */
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; font-size: 0.88rem; }
th, td { padding: 0.3rem 0.55rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
thead th { font-size: 0.8rem; line-height: 1.25; vertical-align: bottom; }
th:first-child, td:first-child {
  text-align: left; padding-left: 0; position: sticky; left: 0; background: var(--paper); min-width: 6.5rem;
  border-right: 1px solid var(--rule);
}
tbody th { font-weight: 600; }
.wide th, .wide td { padding-left: 0.35rem; padding-right: 0.35rem; font-size: 0.82rem; }
.wide thead th { font-size: 0.76rem; }
.wide td small, .wide th small { font-size: 0.74rem; }
.wide th:first-child { padding-left: 0; min-width: 8rem; }
td small, th small { display: block; font-weight: 400; font-size: 0.78rem; line-height: 1.3; white-space: nowrap; }
th small { white-space: normal; max-width: 14rem; }
figure { margin: 1rem 0 1.6rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); gap: 0.8rem; }
.whole .grid { grid-template-columns: minmax(0, 48rem); }
img {
  display: block; width: 100%; max-width: 36rem; height: auto; background: #fff; border: 1px solid var(--rule);
  border-radius: 0.3rem;
}
.whole img { max-width: 48rem; }
.name { white-space: nowrap; }
figcaption { margin-top: 0.4rem; }
details { border: 1px solid var(--rule); border-radius: 0.3rem; padding: 0.3rem 0.8rem; margin: 0.4rem 0; }
summary { cursor: pointer; padding: 0.2rem 0; }
pre {
  background: var(--code); padding: 0.6rem 0.8rem; overflow-x: auto; font-size: 0.82rem; line-height: 1.4;
  margin: 0.4rem 0;
}
@media (max-width: 40rem) {
  main { padding: 0.6rem 0.8rem 2rem; }
  .lead { font-size: 1.08rem; }
  th, td { padding: 0.3rem 0.4rem; }
  td small { white-space: normal; min-width: 5rem; }
  /* The column that stays leaves room for the others. */
  th:first-child, td:first-child { max-width: 9rem; overflow-wrap: anywhere; }
}
@page { size: A4 landscape; margin: 12mm 10mm; }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #333; --rule: #999; --paper: #fff; --note: #fff; --code: #fff; }
  body { font-size: 9.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h1 { font-size: 15pt; }
  h2 { font-size: 12.5pt; }
  h3 { font-size: 10.5pt; }
  .lead { font-size: 11.5pt; }
  .caption, figcaption { font-size: 8pt; }
  .scroll { overflow: visible; background: none; }
  table { font-size: 8pt; }
  thead th, td small, th small { font-size: inherit; }
  .wide th, .wide td, .wide thead th { font-size: 7.6pt; }
  .wide td small, .wide th small { font-size: 7pt; }
  .wide td small { white-space: nowrap; }
  td small { white-space: normal; }
  .wide th, .wide td { padding: 0.15rem 0.25rem; }
  th:first-child, td:first-child { position: static; min-width: 4rem; border-right: 0; }
  .wide th:first-child { min-width: 4.5rem; }
  /* What is folded up on a screen is printed; not so what holds more folded parts, the trials' configurations. */
  details { border: 0; padding: 0; }
  summary { font-weight: 600; break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  details:has(details)::details-content { content-visibility: hidden; block-size: 0; }
  details:has(details) > summary::after { content: " (in the file, not printed)"; font-weight: 400; }
  .grid { grid-template-columns: 1fr 1fr 1fr; gap: 0.4rem; }
  .whole .grid { grid-template-columns: 1fr; }
  .whole img { max-width: 15cm; }
  img { max-height: 17cm; object-fit: contain; border: 0; }
  img, tr, figcaption { break-inside: avoid; }
  thead { display: table-header-group; }
  h2, h3, .caption { break-after: avoid; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; overflow: visible; }
}
"""
