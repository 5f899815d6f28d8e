"""The look of a page of cases: one style sheet, for light and dark screens, telephones and paper."""

REFERENCE, PREDICTION = "#56B4E9", "#FFB000"
"""Sky blue and amber: apart for any colour vision. In grey, line and dashes tell them apart."""

STYLE = f"""
:root {{ color-scheme: light dark; --ink: #1b1b1b; --soft: #595959; --rule: #c8c8c8; --paper: #fff; --note: #fff4d6; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --soft: #ababab; --rule: #4a4a4a; --paper: #161616; --note: #3a3012; }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif;
}}
main {{ max-width: 68rem; margin: 0 auto; padding: 1rem 1.25rem 2rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0.4rem 0; }}
h2 {{ font-size: 1.25rem; margin: 2.2rem 0 0.4rem; border-bottom: 1px solid var(--rule); }}
h3 {{ font-size: 1.05rem; margin: 0 0 0.4rem; }}
h1, h3, p, tbody th {{ overflow-wrap: anywhere; }}
p {{ margin: 0.4rem 0; }}
.lead {{ font-size: 1.2rem; }}
.soft, figcaption, caption, small {{ color: var(--soft); }}
.notice {{ background: var(--note); border-left: 0.3rem solid {PREDICTION}; padding: 0.3rem 0.8rem; }}
article {{ margin: 1.2rem 0 2rem; }}
table {{ border-collapse: collapse; width: 100%; max-width: 48rem; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; font-size: 0.85rem; padding-bottom: 0.2rem; }}
th, td {{ padding: 0.25rem 0.5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }}
th:first-child {{ text-align: left; padding-left: 0; }}
thead th {{ font-size: 0.85rem; line-height: 1.3; vertical-align: bottom; }}
tbody th {{ font-weight: 600; min-width: 5rem; }}
td {{ white-space: nowrap; }}
td small {{ display: block; }}
.scroll {{ overflow-x: auto; }}
.slices {{ display: flex; gap: 0.5rem; align-items: flex-start; margin: 0 0 0.6rem; }}
.slice {{ flex: var(--w) 1 0; min-width: 0; margin: 0; }}
.stack {{ flex: var(--wide) 1 0; min-width: 0; display: flex; flex-direction: column; gap: 0.5rem; }}
.stack .slice {{ flex: none; width: calc(100% * var(--w) / var(--wide)); }}
figcaption {{ font-size: 0.85rem; }}
.picture {{ position: relative; overflow: hidden; }}
.picture svg {{ display: block; width: 100%; height: auto; }}
.ground {{ fill: #2b2b2b; }}
image {{ image-rendering: pixelated; }}
path {{ fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }}
.casing {{ stroke: #000; stroke-opacity: 0.55; stroke-width: 3.6px; }}
.line {{ stroke-width: 2px; }}
.line.reference {{ stroke: {REFERENCE}; }}
.line.prediction {{ stroke: {PREDICTION}; stroke-dasharray: 5 3; }}
.casing.prediction {{ stroke-dasharray: 5 3; stroke-width: 3.2px; }}
.side, .number {{
  position: absolute; font-size: 0.75rem; font-weight: 600; line-height: 1; color: #fff;
  text-shadow: 0 0 2px #000, 0 0 3px #000, 0 0 4px #000;
}}
.left {{ left: 0.2rem; top: 50%; transform: translateY(-50%); }}
.right {{ right: 0.2rem; top: 50%; transform: translateY(-50%); }}
.top {{ top: 0.2rem; left: 50%; transform: translateX(-50%); }}
.bottom {{ bottom: 0.2rem; left: 50%; transform: translateX(-50%); }}
.number {{ transform: translate(-50%, -50%); }}
.number.prediction {{ color: {PREDICTION}; }}
.number.reference {{ color: #bfe3f7; }}
.key {{
  display: flex; flex-wrap: wrap; gap: 0.2rem 1.5rem; align-items: center; padding: 0; margin: 0.4rem 0;
  list-style: none;
}}
.key svg {{ width: 3.2rem; height: 1.1rem; vertical-align: -0.25rem; margin-right: 0.4rem; }}
footer {{ margin-top: 2.5rem; border-top: 1px solid var(--rule); font-size: 0.85rem; }}
@media (max-width: 40rem) {{
  main {{ padding: 0.6rem 0.8rem 1.5rem; }}
  .slices {{ flex-direction: column; }}
  .stack {{ flex: none; display: contents; }}
  .slice, .stack .slice {{ flex: none; width: calc(100% * var(--w) / var(--max)); }}
  th, td {{ padding: 0.25rem 0.15rem; }}
  table, thead th {{ font-size: 0.78rem; }}
  tbody th {{ min-width: 5.3rem; }}
}}
@media print {{
  :root {{ color-scheme: light; --ink: #000; --soft: #444; --rule: #999; --paper: #fff; --note: #fff; }}
  body {{ font-size: 9pt; }}
  main {{ max-width: none; padding: 0; }}
  .picture {{ print-color-adjust: exact; -webkit-print-color-adjust: exact; }}
  .slices {{ max-width: 75%; }}  /* so that two cases fit on a sheet */
  article, tr, .slices {{ break-inside: avoid; }}
  h2 {{ break-after: avoid; }}
}}
"""
