"use strict";
// Sort a table by a column on a click on its heading; empty cells stay last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down === -1 ? "descending" : "ascending");
    const key = (row) => row.children[column].dataset.sort ?? "";
    const compare = (one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      const numbers = Number(a) - Number(b);
      return down * (Number.isNaN(numbers) ? a.localeCompare(b) : numbers);
    };
    body.append(...[...body.rows].sort(compare));
  });
}
// Show what was measured on one device.
const choice = document.querySelector("select[name=device]");
choice?.addEventListener("change", () => {
  for (const element of document.querySelectorAll("[data-device]")) element.hidden = element.dataset.device !== choice.value;
});
document.querySelector(".copy")?.addEventListener("click", (event) => {
  navigator.clipboard?.writeText(document.querySelector("#snippet").textContent);
  event.target.textContent = "copied";
});
