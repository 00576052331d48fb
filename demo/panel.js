// The buttons below the pictures. gradio runs this once for each panel, with its `element`, `trigger` and `props`.
element.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  if (button.dataset.do === "copy") {
    const text = button.previousElementSibling;
    getSelection().selectAllChildren(text);
    // Without https, and off this machine, there is no clipboard: then the text is at least selected.
    await navigator.clipboard?.writeText(text.textContent);
    button.textContent = "✓";
  } else {
    trigger("click", { do: button.dataset.do, value: button.dataset.value });
  }
});

// A file that is too large is answered below its field, in the visitor's language. gradio would answer in English.
const refuse = (event) => {
  const field = event.target.closest("[class*=field-]")?.className.match(/field-(\w+)/)[1];
  const files = [...(event.target.files ?? event.dataTransfer?.files ?? [])];
  if (!field || files.every((file) => file.size <= props.most)) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.target.files) event.target.value = "";
  trigger("click", { do: "large", value: field });
};
for (const kind of ["change", "drop"]) element.closest("[role=tabpanel]").addEventListener(kind, refuse, true);
