// Formulas: MathJax reads this before it starts. The menu would load further files.
window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
  options: { ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex", enableMenu: false },
};

// The gallery: cards of one paper, of one verdict, or both. `results/index.html?verdict=partly` works too.
document.addEventListener("DOMContentLoaded", () => {
  const paper = document.getElementById("filter-paper");
  if (!paper) return;
  const verdict = document.getElementById("filter-verdict");
  const count = document.getElementById("filter-count");
  const cards = [...document.querySelectorAll(".record")];
  const show = () => {
    let shown = 0;
    for (const card of cards) {
      const fits = (select, value) => !select.value || select.value === value;
      card.hidden = !(fits(paper, card.dataset.paper) && fits(verdict, card.dataset.verdict));
      shown += !card.hidden;
    }
    count.textContent = `${shown} of ${cards.length}`;
  };
  const asked = new URLSearchParams(location.search);
  paper.value = asked.get("paper") ?? "";
  verdict.value = asked.get("verdict") ?? "";
  paper.addEventListener("change", show);
  verdict.addEventListener("change", show);
  show();
});
