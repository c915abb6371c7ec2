// Files as a ZIP, stored without compression.
const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? 0xedb88320 ^ (rest >>> 1) : rest >>> 1;
  return rest;
});

function checksum(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) rest = CRC[(rest ^ byte) & 255] ^ (rest >>> 8);
  return (rest ^ 0xffffffff) >>> 0;
}

/** Numbers of 2 or 4 bytes, [size, value], little endian. */
function numbers(...fields) {
  const made = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let place = 0;
  for (const [size, value] of fields) {
    if (size === 2) made.setUint16(place, value, true);
    else made.setUint32(place, value, true);
    place += size;
  }
  return new Uint8Array(made.buffer);
}

const UTF8 = 0x800;
const NEW_YEAR = 0x21;      // 1 January 1980, the first day that there is

/** `files` are pairs of a name and its bytes. */
export function zip(files) {
  const parts = [];
  const directory = [];
  let place = 0;
  for (const [name, content] of files) {
    const letters = new TextEncoder().encode(name);
    const common = [[2, 20], [2, UTF8], [2, 0], [2, 0], [2, NEW_YEAR], [4, checksum(content)], [4, content.length],
      [4, content.length], [2, letters.length], [2, 0]];
    const head = numbers([4, 0x04034b50], ...common);
    directory.push(numbers([4, 0x02014b50], [2, 20], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, place]), letters);
    parts.push(head, letters, content);
    place += head.length + letters.length + content.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, place],
    [2, 0]);
  return new Blob([...parts, ...directory, end]);
}
