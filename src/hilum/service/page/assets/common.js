// What every part shares: building elements, whose key a key is, and dropping files anywhere on the page.

function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("aria-") || name.startsWith("data-") || name === "role" || name === "for") {
      made.setAttribute(name, value);
    } else {
      made[name] = value;
    }
  }
  made.append(...children);
  return made;
}

/** Whether a key is meant for something that is written or chosen in, or for a dialog that is open. */
function isTaken(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  const target = event.composedPath()[0];
  if (target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement || target.isContentEditable) return true;
  if (target instanceof HTMLInputElement && target.type !== "range") return true;
  return document.querySelector('[role="dialog"]') !== null;
}

/** Files dropped beside the upload box go into it. */
function dropAnywhere() {
  if (window.hilumDrops) return;
  window.hilumDrops = true;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  window.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  window.addEventListener("drop", (event) => {
    const inBox = event.composedPath().some((place) => place.dataset?.testid === "stFileUploaderDropzone");
    if (!hasFiles(event) || inBox) return;
    event.preventDefault();
    const input = document.querySelector('[data-testid="stFileUploader"] input[type="file"]');
    if (!input || !event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}

