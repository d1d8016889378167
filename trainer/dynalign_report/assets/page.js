// What all parts of the report use: its data, and the rows that it holds compressed.

const reportData = JSON.parse(document.getElementById("report-data").textContent);

/** The text of a compressed chunk. */
async function unpack(id) {
  const binary = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const unpackedRows = new Map();

/** The rows of a chunk, parsed once. */
function rowsOf(id) {
  if (!unpackedRows.has(id)) unpackedRows.set(id, unpack(id).then(JSON.parse));
  return unpackedRows.get(id);
}
