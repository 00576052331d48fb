// The buttons below the pictures. gradio runs this once for each panel, with its `element` and `trigger`.
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
