/* SPDX-FileCopyrightText: The sev-artifacts authors
   SPDX-License-Identifier: Apache-2.0 */
"use strict";
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    let said = "copied";
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      said = "could not be copied: select it instead";
    }
    document.getElementById("heard").textContent = `${button.dataset.name}: ${said}`;
    button.textContent = said === "copied" ? "Copied" : "Select it";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}
