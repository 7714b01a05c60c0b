// Before the page is drawn: the colours that were chosen here, or those of the system.
"use strict";

(() => {
  const root = document.documentElement;
  const chosen = () => {
    try {
      return localStorage.getItem("headrace-theme") || "auto";
    } catch {
      return "auto";
    }
  };
  const wear = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.setAttribute("data-theme", theme);
    document.dispatchEvent(new Event("headrace:theme"));
  };
  wear(chosen());
  document.addEventListener("DOMContentLoaded", () => {
    const select = document.getElementById("theme");
    select.value = chosen();
    select.addEventListener("change", () => {
      try {
        localStorage.setItem("headrace-theme", select.value);
      } catch {
        // Without storage it holds for this page.
      }
      wear(select.value);
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => wear(chosen()));
})();
